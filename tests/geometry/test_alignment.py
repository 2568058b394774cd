"""Similarity alignment of points and of camera trajectories."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nas3r.geometry import Similarity, align_cameras, align_points, make_pose, so3_exp

seeds = st.integers(0, 2**31 - 1)


def random_similarity(seed: int, *batch: int) -> Similarity:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*batch, 7, dtype=torch.float64, generator=generator)
    return Similarity(values[..., 0].exp(), so3_exp(values[..., 1:4]), 3 * values[..., 4:])


def random_poses(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, 6, dtype=torch.float64, generator=generator)
    return make_pose(so3_exp(values[..., :3]), values[..., 3:])


def assert_same(a: Similarity, b: Similarity) -> None:
    # Conditioning of random point sets of at least three points: rounding times at most 1e4.
    torch.testing.assert_close(a.scale, b.scale, rtol=1e-10, atol=0)
    torch.testing.assert_close(a.rotation, b.rotation, rtol=0, atol=1e-10)
    torch.testing.assert_close(a.translation, b.translation, rtol=0, atol=1e-9)


@given(seeds, st.integers(4, 12))
def test_points_recover_the_similarity(seed: int, n: int) -> None:
    truth = random_similarity(seed, 2)
    source = torch.randn(2, n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert_same(align_points(source, truth.points(source)), truth)


@given(seeds, st.integers(2, 8))
def test_cameras_recover_the_similarity(seed: int, n: int) -> None:
    truth = random_similarity(seed, 2)
    source = random_poses(seed, 2, n)
    assert_same(align_cameras(source, truth.poses(source)), truth)


def test_rigid_alignment_keeps_the_scale() -> None:
    truth = random_similarity(0)
    source = torch.randn(6, 3, dtype=torch.float64)
    found = align_points(source, truth.points(source), with_scale=False)
    assert found.scale.item() == 1
    torch.testing.assert_close(found.rotation, truth.rotation)
    poses = random_poses(0, 4)
    assert align_cameras(poses, truth.poses(poses), with_scale=False).scale.item() == 1


def test_alignment_is_least_squares() -> None:
    """No nearby similarity fits noisy points better."""
    source = torch.randn(8, 3, dtype=torch.float64)
    target = random_similarity(1).points(source) + 0.3 * torch.randn(8, 3, dtype=torch.float64)
    best = align_points(source, target)
    error = (best.points(source) - target).square().sum()
    for seed in range(50):
        g = torch.Generator().manual_seed(seed)
        step = 0.01 * torch.randn(7, dtype=torch.float64, generator=g)
        other = Similarity(
            best.scale * step[0].exp(), so3_exp(step[1:4]) @ best.rotation, best.translation + step[4:]
        )
        assert (other.points(source) - target).square().sum() > error


def test_mirrored_points_still_give_a_rotation() -> None:
    source = torch.randn(10, 3, dtype=torch.float64)
    found = align_points(source, source * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    assert torch.linalg.det(found.rotation).item() == pytest.approx(1)


def test_planar_and_collinear_points_are_fitted_exactly() -> None:
    truth = random_similarity(2)
    plane = torch.randn(6, 3, dtype=torch.float64) * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    line = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2, 3]).double()
    assert_same(align_points(plane, truth.points(plane)), truth)
    found = align_points(line, truth.points(line))  # the rotation about the line is free
    torch.testing.assert_close(found.points(line), truth.points(line))
    torch.testing.assert_close(found.scale, truth.scale)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_coincident_points_have_scale_one(n: int) -> None:
    """Also when rounding makes their mean differ from them."""
    source = torch.full((n, 3), 0.1) + torch.tensor([0.0, 0.2, 1000.0])
    target = torch.randn(n, 3)
    found = align_points(source, target)
    assert found.scale.item() == 1
    assert torch.linalg.det(found.rotation).item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(found.points(source).mean(0), target.mean(0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_cameras_at_one_place_have_scale_one(n: int) -> None:
    truth = random_similarity(3)
    poses = random_poses(3, n)
    poses[..., :3, 3] = torch.tensor([0.1, 0.3, 1000.0], dtype=torch.float64)
    found = align_cameras(poses, truth.poses(poses))
    assert found.scale.item() == 1
    torch.testing.assert_close(found.rotation, truth.rotation)


def test_straight_path_leaves_nothing_undetermined() -> None:
    truth = random_similarity(4)
    poses = random_poses(4, 5)
    poses[:, :3, 3] = (
        torch.linspace(0, 1, 5, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0, 0]).double()
    )
    assert_same(align_cameras(poses, truth.poses(poses)), truth)


@pytest.mark.parametrize(
    ("source", "target"),
    [((4, 3), (5, 3)), ((0, 3), (0, 3)), ((4, 2), (4, 2))],
)
def test_wrong_point_shapes_are_named(source: tuple, target: tuple) -> None:
    with pytest.raises(ValueError, match="align_points: expected two equal shapes"):
        align_points(torch.zeros(source), torch.zeros(target))


@pytest.mark.parametrize(
    ("source", "target"),
    [((4, 4, 4), (5, 4, 4)), ((0, 4, 4), (0, 4, 4)), ((4, 3, 4), (4, 3, 4))],
)
def test_wrong_pose_shapes_are_named(source: tuple, target: tuple) -> None:
    with pytest.raises(ValueError, match="align_cameras: expected two equal shapes"):
        align_cameras(torch.zeros(source), torch.zeros(target))
