"""Poses and focal length from the matches of all pairs: slopes, recovery, what cannot be known."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import jacfwd

from nas3r.geometry import angle_between, make_pose, rotation_angle, so3_exp
from nas3r.solver import all_views
from nas3r.solver.all_views import MatchedViews, adjust_poses
from nas3r.solver.correspondences import Correspondences
from nas3r.solver.epipolar import epipolar_distances
from nas3r.solver.two_view import RelativePose, epipolar_cost

SIGMA = 4e-3  # of a match: half a pixel at a focal length of 128


def scene(seed: int, views: int = 4, count: int = 60, wrong: float = 0.0) -> tuple[MatchedViews, Tensor]:
    """Views round a cloud of points, all matched with all; a share of the matches is wrong."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=g, dtype=torch.float64) - 1

    centers = torch.cat([torch.zeros(1, 3), 0.6 * uniform(views - 1, 3)])
    rotations = so3_exp(torch.cat([torch.zeros(1, 3), 0.2 * uniform(views - 1, 3)]).double())
    others = torch.tensor([[j for j in range(views) if j != i] for i in range(views)])
    xy = 0.5 * uniform(views, count, 2)
    rays = torch.cat([xy, torch.ones(views, count, 1, dtype=torch.float64)], -1)
    depth = 2 + uniform(views, count, 1).square() * 2
    points = (depth * rays) @ rotations.mT + centers[:, None]
    seen = (points[:, None] - centers[others][:, :, None]) @ rotations[others]
    matches = seen[..., :2] / seen[..., 2:]
    matches = matches + SIGMA * torch.randn(matches.shape, generator=g, dtype=torch.float64)
    lost = torch.rand(matches.shape[:-1], generator=g)[..., None] < wrong
    matches = torch.where(lost, uniform(*matches.shape), matches)
    pairs = Correspondences(
        rays[:, None].expand(*matches.shape[:-1], 3),
        matches,
        SIGMA**2 * torch.eye(2, dtype=torch.float64).expand(*matches.shape, 2),
        torch.ones(matches.shape[:-1], dtype=torch.float64),
    )
    batched = Correspondences(*(getattr(pairs, f.name)[None] for f in fields(Correspondences)))
    return MatchedViews(batched, others[None]), make_pose(rotations, centers)[None]


def disturbed(poses: Tensor, seed: int, by: float) -> Tensor:
    """Poses that are turned and shifted, but for the first one."""
    g = torch.Generator().manual_seed(seed)
    turn, shift = by * torch.randn(2, *poses.shape[:2], 3, generator=g, dtype=torch.float64)
    turn[:, 0] = shift[:, 0] = 0
    return make_pose(so3_exp(turn) @ poses[..., :3, :3], poses[..., :3, 3] + shift)


def seen_with(matched: MatchedViews, factor: float) -> MatchedViews:
    """As it looks to somebody who assumes a focal length that is too short by a factor."""
    p = matched.pairs
    rays = torch.cat([p.rays[..., :2] * factor, p.rays[..., 2:]], -1)
    return replace(
        matched,
        pairs=Correspondences(rays, p.points * factor, p.covariances * factor**2, p.weights),
    )


def assert_near(found: Tensor, true: Tensor, degrees: float) -> None:
    """By rotation; directions and distances may be off by what that is in a scene of such depth."""
    assert rotation_angle(found[..., :3, :3], true[..., :3, :3]).max() < degrees
    assert angle_between(found[:, 1:, :3, 3], true[:, 1:, :3, 3]).max() < 5 * degrees
    scale = true[..., :3, 3].norm(dim=-1)[:, 1:] / found[..., :3, 3].norm(dim=-1)[:, 1:]
    assert scale.std(1).max() < 0.1 * degrees * scale.mean()


@pytest.mark.parametrize("seed", range(3))
def test_slopes_are_the_derivatives(seed):
    """Of distances, by all that a step changes: against automatic differentiation, off the minimum."""
    matched, poses = scene(seed, views=3, count=5, wrong=0.3)
    start = disturbed(poses, seed, 0.1)
    state = all_views._State(start[..., :3, :3], start[..., :3, 3], torch.tensor([0.1], dtype=torch.float64))

    def distances(step: Tensor) -> Tensor:
        moved = all_views._moved(state, step[None])
        rotation, direction, _ = all_views._relative(matched, moved)
        return epipolar_distances(all_views._with_focal(matched, moved), rotation, direction)[0].flatten()

    expected = jacfwd(distances)(torch.zeros(13, dtype=torch.float64))
    rotation, direction, length = all_views._relative(matched, state)
    pairs = all_views._with_focal(matched, state)
    distance, slopes = all_views.distance_slopes(pairs, rotation, direction)
    per_pair = slopes @ all_views._chain(matched, state, direction, length)
    actual = torch.zeros(1, 3, 2, 5, 19, dtype=torch.float64)
    for view in range(3):
        for k, other in enumerate(matched.others[0, view].tolist()):
            actual[0, view, k, :, 6 * view : 6 * view + 6] += per_pair[0, view, k, :, :6]
            actual[0, view, k, :, 6 * other : 6 * other + 6] += per_pair[0, view, k, :, 6:12]
            actual[0, view, k, :, 18] += per_pair[0, view, k, :, 12]
    torch.testing.assert_close(distance.flatten(), distances(torch.zeros(13, dtype=torch.float64)))
    torch.testing.assert_close(actual[..., 6:].reshape(-1, 13), expected)  # float64 rounding


def test_cost_is_that_of_the_pairs():
    """The sum of what two views minimise, match by match."""
    matched, poses = scene(0, wrong=0.2)
    state = all_views._State(poses[..., :3, :3], poses[..., :3, 3], torch.zeros(1, dtype=torch.float64))
    rotation, direction, _ = all_views._relative(matched, state)
    pose = RelativePose(rotation, direction, torch.zeros(rotation.shape[:-2]))
    mean = epipolar_cost(matched.pairs, pose)
    torch.testing.assert_close(all_views._cost(matched, state), 60 * mean.sum((1, 2)))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_poses_are_found_from_nearby_and_through_wrong_matches(seed):
    matched, poses = scene(seed, wrong=0.3)
    found, factor = adjust_poses(matched, disturbed(poses, seed, 0.02), focal=False)
    assert factor.item() == 1
    assert_near(found, poses, 2.0)  # of 150 scenes, three were off by more than one degree


@pytest.mark.parametrize("assumed", [0.75, 1.3])
def test_three_views_and_more_say_the_focal_length(assumed):
    matched, poses = scene(1, views=4, count=200, wrong=0.2)
    found, factor = adjust_poses(seen_with(matched, assumed), disturbed(poses, 0, 0.02))
    assert factor.item() == pytest.approx(assumed, rel=0.03)
    assert_near(found, poses, 0.5)


def test_what_matches_do_not_say_stays():
    """The unit, the first view, and views without matches."""
    matched, poses = scene(2)
    start = disturbed(poses, 3, 0.02)
    found, _ = adjust_poses(matched, start, focal=False)
    distance = (x[:, 1:, :3, 3].norm(dim=-1).mean() for x in (start, found))
    assert next(distance).item() == pytest.approx(next(distance).item())
    torch.testing.assert_close(found[:, 0], start[:, 0])
    alone = replace(matched.pairs, weights=torch.zeros_like(matched.pairs.weights))
    same, factor = adjust_poses(replace(matched, pairs=alone), start)
    torch.testing.assert_close(same, start)
    assert factor.item() == 1


def test_scenes_of_a_batch_do_not_touch_each_other():
    scenes = [scene(seed, wrong=0.1) for seed in (4, 5)]
    both = MatchedViews(
        Correspondences(
            *(
                torch.cat([getattr(matched.pairs, f.name) for matched, _ in scenes])
                for f in fields(Correspondences)
            )
        ),
        torch.cat([matched.others for matched, _ in scenes]),
    )
    starts = [disturbed(poses, 7, 0.02) for _, poses in scenes]
    together, factors = adjust_poses(both, torch.cat(starts))
    for i, (matched, _) in enumerate(scenes):
        alone, factor = adjust_poses(matched, starts[i])
        # The batch goes on until its last scene is done: a little further than that scene alone would.
        assert rotation_angle(together[i, :, :3, :3], alone[0, :, :3, :3]).max() < 0.02
        assert factors[i].item() == pytest.approx(factor.item(), rel=1e-2)
