"""Poses from points of known place: recovery, robustness, what depth errors do, gradients."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas3r.geometry import (
    angle_between,
    invert_pose,
    make_pose,
    rotation_angle,
    se3_exp,
    so3_exp,
    transform_points,
)
from nas3r.solver.resection import Sightings, resect

SIGMA = 0.01  # of a sighting, about a pixel at focal length 100


def _projected(world_from_camera: Tensor, points: Tensor) -> Tensor:
    there = transform_points(invert_pose(world_from_camera), points)
    return there[..., :2] / there[..., 2:]


def exact_sightings(seed: int, count: int = 60) -> tuple[Sightings, Tensor]:
    """Points whose depth two cameras know, where a third one sees them, and its pose."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    pose = make_pose(so3_exp(0.4 * uniform(3) - 0.2), 0.8 * uniform(3) - 0.4)
    origins = (torch.arange(count) % 2)[:, None] * torch.tensor([0.5, 0.1, 0.0], dtype=torch.float64)
    xy = uniform(count, 2) - 0.5
    depth = 1.5 + 2 * uniform(count, 1)
    points = origins + depth * torch.cat([xy, torch.ones(count, 1, dtype=torch.float64)], -1)
    covariances = (SIGMA**2 * torch.eye(2, dtype=torch.float64)).expand(count, 2, 2)
    return Sightings(
        points,
        origins,
        _projected(pose, points),
        covariances,
        torch.ones(count, dtype=torch.float64),
    ), pose


def _near(pose: Tensor, *, turned: float = 0.05, moved: float = 0.1) -> Tensor:
    twist = torch.tensor([moved, -moved, moved, turned, turned, -turned], dtype=torch.float64)
    return pose @ se3_exp(twist)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_exact_sightings_give_the_pose(seed):
    sightings, pose = exact_sightings(seed)
    found = resect(sightings, _near(pose), iterations=15)
    # 1e-3 of information is always added, against some 1e3 from the sightings; damping slows the last steps.
    torch.testing.assert_close(found, pose, atol=2e-4, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_quarter_of_wrong_sightings_does_little_harm(seed):
    sightings, pose = exact_sightings(seed)
    seen = sightings.seen.clone()
    seen[::4] = torch.rand(seen[::4].shape, generator=torch.Generator().manual_seed(seed)).double() - 0.5
    found = resect(replace(sightings, seen=seen), _near(pose, turned=0.01, moved=0.02), iterations=20)
    assert rotation_angle(found[:3, :3], pose[:3, :3]) < 0.5
    assert (found[:3, 3] - pose[:3, 3]).norm() < 0.03


def test_wrong_depth_moves_points_along_their_rays_and_counts_less():
    """Against the same errors across the rays, which are taken at their word."""
    sightings, pose = exact_sightings(3)
    noise = 0.1 * torch.randn(60, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    off = noise * (sightings.points - sightings.origins)
    along = resect(replace(sightings, points=sightings.points + off), pose, iterations=10)
    across = off[:, [1, 2, 0]] - off[:, [2, 0, 1]]
    other = resect(replace(sightings, points=sightings.points + across), pose, iterations=10)
    assert rotation_angle(along[:3, :3], pose[:3, :3]) < rotation_angle(other[:3, :3], pose[:3, :3])


def test_a_start_that_explains_the_sightings_better_is_kept():
    sightings, pose = exact_sightings(4)
    assert torch.equal(resect(sightings, pose), pose)


def test_points_behind_the_camera_and_nothing_seen_give_finite_poses():
    sightings, pose = exact_sightings(5)
    behind = replace(sightings, points=-sightings.points)
    blind = replace(sightings, weights=torch.zeros_like(sightings.weights))
    for given_ in (behind, blind):
        assert torch.equal(resect(given_, pose), pose)


def test_gradients_are_those_of_the_minimum():
    """Against central differences of the minimum, by points and by what is seen."""
    sightings, pose = exact_sightings(6, count=30)
    weighting = torch.linspace(-1, 1, 16, dtype=torch.float64).unflatten(0, (4, 4))
    start = _near(pose, turned=1e-3, moved=1e-3)
    for name in ("points", "seen"):
        value = getattr(sightings, name).clone().requires_grad_()
        (
            resect(replace(sightings, **{name: value}), start, iterations=30, damping=0.0) * weighting
        ).sum().backward()
        assert value.grad is not None
        for i, axis in [(0, 0), (7, 1), (20, 0)]:
            values = []
            for delta in (-1e-5, 1e-5):
                moved = getattr(sightings, name).clone()
                moved[i, axis] += delta
                found = resect(replace(sightings, **{name: moved}), start, iterations=60, damping=0.0)
                values.append((found * weighting).sum())
            numeric = (values[1] - values[0]) / 2e-5
            # 1e-3 of information is always added, against about 1e3 from the sightings.
            torch.testing.assert_close(value.grad[i, axis], numeric, rtol=1e-3, atol=1e-4)


def test_a_batch_is_its_members():
    members = [exact_sightings(seed) for seed in range(3)]
    batch = Sightings(
        *(torch.stack([getattr(s, f.name) for s, _ in members])[None] for f in fields(Sightings))
    )
    starts = torch.stack([_near(pose) for _, pose in members])
    together = resect(batch, starts[None])
    for i, (sightings, _) in enumerate(members):
        torch.testing.assert_close(together[0, i], resect(sightings, starts[i]))


def test_scale_of_the_world_does_not_matter():
    sightings, pose = exact_sightings(7)
    found = resect(sightings, _near(pose), iterations=3)
    larger = replace(sightings, points=3 * sightings.points, origins=3 * sightings.origins)
    start = _near(pose)
    start[:3, 3] *= 3
    other = resect(larger, start, iterations=3)
    assert rotation_angle(found[:3, :3], other[:3, :3]) < 0.05
    assert angle_between(found[:3, 3], other[:3, 3]) < 0.2
