"""Relative pose from correspondences: recovery, robustness, gradients."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from nas3r.geometry import angle_between, rotation_angle, so3_exp
from nas3r.solver.two_view import (
    Correspondences,
    RelativePose,
    inverse_depths,
    refine_relative_pose,
    search_relative_pose,
    translation_length,
)

SIGMA = 0.01  # of a match, about a pixel at focal length 100


def exact_pairs(
    seed: int, *, angle: float = 0.15, count: int = 80
) -> tuple[Correspondences, Tensor, Tensor, Tensor]:
    """Noise-free correspondences with rotation, translation and z-depth in the view."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    rotation = so3_exp(angle * torch.nn.functional.normalize(normal(3), dim=0))
    translation = 0.4 * torch.nn.functional.normalize(normal(3), dim=0)
    xy = torch.rand(count, 2, generator=g, dtype=torch.float64) - 0.5
    rays = torch.cat([xy, torch.ones(count, 1, dtype=torch.float64)], -1)
    depth = 1.5 + 2 * torch.rand(count, generator=g, dtype=torch.float64)
    points = (depth[:, None] * rays) @ rotation.T + translation
    pairs = Correspondences(
        rays=rays,
        points=points[:, :2] / points[:, 2:],
        covariances=SIGMA**2 * torch.eye(2, dtype=torch.float64).expand(count, 2, 2),
        weights=torch.ones(count, dtype=torch.float64),
    )
    return pairs, rotation, translation, depth


def thoroughly_solved(pairs: Correspondences) -> RelativePose:
    """With many hypotheses, and refined to the end."""
    start = search_relative_pose(pairs, hypotheses=256, iterations=5)
    return refine_relative_pose(pairs, start, iterations=10, damping=0.0)


def errors(pose: RelativePose, rotation: Tensor, translation: Tensor) -> tuple[float, float]:
    """Rotation and direction errors in degrees."""
    return rotation_angle(pose.rotation, rotation).item(), angle_between(pose.direction, translation).item()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0.0, 0.4))
def test_exact_matches_give_the_pose_with_its_sign(seed, angle):
    pairs, rotation, translation, _ = exact_pairs(seed, angle=angle)
    pose = refine_relative_pose(
        pairs, search_relative_pose(pairs, hypotheses=64, iterations=3), iterations=12, damping=0.0
    )
    turned, off = errors(pose, rotation, translation)
    assert turned < 0.05
    assert off < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_few_correspondences_may_choose_the_first_hypotheses(seed):
    pairs, rotation, translation, _ = exact_pairs(seed)
    pose = search_relative_pose(pairs, hypotheses=64, iterations=3, few=torch.arange(0, 80, 4))
    pose = refine_relative_pose(pairs, pose, iterations=12, damping=0.0)
    turned, off = errors(pose, rotation, translation)
    assert turned < 0.05
    assert off < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_a_quarter_of_wrong_matches_does_little_harm(seed):
    pairs, rotation, translation, _ = exact_pairs(seed)
    wrong = pairs.points.clone()
    wrong[::4] = torch.rand(wrong[::4].shape, generator=torch.Generator().manual_seed(seed)).double() - 0.5
    pairs = replace(pairs, points=wrong)
    turned, off = errors(thoroughly_solved(pairs), rotation, translation)
    assert turned < 1.5
    assert off < 6


def test_uncertain_directions_of_a_match_do_not_count():
    """Matches that slide along an edge are wrong in x alone, and say so."""
    pairs, rotation, translation, _ = exact_pairs(3)
    slid = pairs.points.clone()
    slid[::2, 0] += 0.3
    covariances = pairs.covariances.clone()
    covariances[::2, 0, 0] = 1.0
    told = replace(pairs, points=slid, covariances=covariances)
    turned, off = errors(thoroughly_solved(told), rotation, translation)
    assert turned < 0.3
    assert off < 3


def test_triangulation_and_length_invert_the_projection():
    pairs, rotation, translation, depth = exact_pairs(5)
    length = torch.linalg.vector_norm(translation)
    true = RelativePose(rotation, translation / length, torch.zeros((), dtype=torch.float64))
    in_reference = ((depth[:, None] * pairs.rays) @ rotation.T + translation)[:, 2]
    # 1e-6: the small terms that keep divisions defined, relative to the parallax.
    torch.testing.assert_close(translation_length(pairs, true, in_reference), length, rtol=1e-4, atol=0)
    # Triangulation is of first order in translation over depth; here up to 0.4 / 1.5.
    estimate, information = inverse_depths(pairs, replace(true))
    assert torch.corrcoef(torch.stack([estimate, 1 / depth]))[0, 1] > 0.9
    assert (information > 0).all()


def test_length_is_never_negative_nor_zero():
    pairs, rotation, translation, depth = exact_pairs(6)
    back = RelativePose(rotation, -torch.nn.functional.normalize(translation, dim=0), torch.zeros(()))
    assert 0 < translation_length(pairs, back, depth) < 0.01


def _solved(pairs: Correspondences, start: RelativePose, iterations: int) -> Tensor:
    pose = refine_relative_pose(pairs, start, iterations=iterations, damping=0.0)
    return torch.cat([pose.rotation.flatten(), pose.direction])


def test_gradients_are_those_of_the_minimum():
    """Against central differences of the minimum; without noise Gauss-Newton's Hessian is exact."""
    pairs, rotation, translation, _ = exact_pairs(7, count=30)
    start = RelativePose(rotation, torch.nn.functional.normalize(translation, dim=0), torch.zeros(()))
    matches = pairs.points.clone().requires_grad_()
    weighting = torch.linspace(-1, 1, 12, dtype=torch.float64)
    (_solved(replace(pairs, points=matches), start, 2) * weighting).sum().backward()
    assert matches.grad is not None
    for i, axis in [(0, 0), (7, 1), (20, 0)]:
        values = []
        for delta in (-1e-5, 1e-5):
            moved = pairs.points.clone()
            moved[i, axis] += delta
            values.append((_solved(replace(pairs, points=moved), start, 60) * weighting).sum())
        numeric = (values[1] - values[0]) / 2e-5
        # 1e-3 of information about the rotation is always added, against about 1e3 from the matches.
        torch.testing.assert_close(matches.grad[i, axis], numeric, rtol=1e-3, atol=1e-4)


def test_gradcheck_of_length_and_triangulation():
    pairs, rotation, translation, depth = exact_pairs(8, count=6)
    pose = RelativePose(rotation, torch.nn.functional.normalize(translation, dim=0), torch.zeros(()))

    def f(matches: Tensor, direction: Tensor, depth: Tensor) -> tuple[Tensor, ...]:
        moved, m = replace(pairs, points=matches), replace(pose, direction=direction)
        return translation_length(moved, m, depth), *inverse_depths(moved, m)

    inputs = (pairs.points + 0.003, pose.direction, depth)
    assert gradcheck(f, tuple(x.clone().requires_grad_() for x in inputs))


def test_nothing_seen_is_no_motion_and_no_nan():
    pairs, *_ = exact_pairs(9)
    pairs = replace(pairs, weights=torch.zeros_like(pairs.weights))
    pose = refine_relative_pose(pairs, search_relative_pose(pairs))
    torch.testing.assert_close(pose.rotation, torch.eye(3, dtype=torch.float64))
    assert pose.direction.isfinite().all()


@pytest.mark.parametrize("angle", [0.0, 0.2])
def test_pure_rotation_is_found_whatever_direction_is_reported(angle):
    pairs, rotation, *_ = exact_pairs(10, angle=angle)
    there = pairs.rays @ rotation.T
    pairs = replace(pairs, points=there[:, :2] / there[:, 2:])
    pose = refine_relative_pose(pairs, search_relative_pose(pairs, iterations=3), iterations=5)
    assert rotation_angle(pose.rotation, rotation) < 0.1
    assert pose.direction.isfinite().all()


def test_a_batch_is_its_members():
    members = [exact_pairs(seed)[0] for seed in range(3)]
    batch = Correspondences(
        *(
            torch.stack([getattr(p, n) for p in members])[None]
            for n in ("rays", "points", "covariances", "weights")
        )
    )
    together = refine_relative_pose(batch, search_relative_pose(batch))
    for i, pairs in enumerate(members):
        alone = refine_relative_pose(pairs, search_relative_pose(pairs))
        torch.testing.assert_close(together.rotation[0, i], alone.rotation)
        torch.testing.assert_close(together.direction[0, i], alone.direction)
