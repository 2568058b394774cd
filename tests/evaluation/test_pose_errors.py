"""Pose errors against hand-computed values and the published implementation's numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas3r.evaluation.pose import (
    PoseErrors,
    all_pairs,
    auc,
    focal_errors,
    pose_errors,
    recall_curve,
    summarise,
    trajectory_error,
)
from nas3r.geometry import se3_exp


def random_poses(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return se3_exp(torch.randn(count, 6, generator=generator, dtype=torch.float64))


def test_auc_of_the_published_code(reference_folder):
    stored = np.load(reference_folder / "modules" / "metrics.npz")
    # Same float64 formula: only the order of summation may differ.
    np.testing.assert_allclose(auc(stored["errors"], (5, 10, 20)), stored["auc_5_10_20"], rtol=0, atol=1e-12)


def test_pose_errors_of_the_published_code(reference_folder):
    stored = np.load(reference_folder / "modules" / "metrics.npz")
    translation, _, rotation = stored["pose_err_t_tscale_R"][0]
    # The stored poses are relative to an identity first view: pair (0, k) compares them as they are.
    eye = torch.eye(4, dtype=torch.float64)
    predicted, true = (torch.stack([eye, torch.tensor(p).double()]) for p in stored["poses"])
    errors = pose_errors(predicted, true)
    # The stored figures went through acos of float32 poses that are orthogonal to 1e-7: 1e-6 of 100 degrees.
    assert float(errors.rotation) == pytest.approx(rotation, rel=1e-6)
    assert float(errors.translation_folded) == pytest.approx(translation, rel=1e-6)


def test_auc_by_hand():
    # Recall 1/2 at 2 degrees, 1 at 6. Up to 4: triangle 2 * 1/2 / 2, then 1/2 held for 2 degrees: 1.5 / 4.
    assert auc([6.0, 2.0], [4.0]) == [pytest.approx(0.375)]
    # Up to 10: 0.5 + the trapezoid from 2 to 6, (1/2 + 1) / 2 * 4 = 3, + 4 at recall 1.
    assert auc([6.0, 2.0], [10.0]) == [pytest.approx(0.75)]
    assert auc([0.0, 0.0], [5.0]) == [pytest.approx(1.0)]
    assert auc([np.inf], [5.0]) == [0.0]


@pytest.mark.parametrize("errors", [[], [1.0, float("nan")]])
def test_auc_refuses_nothing_and_nan(errors):
    with pytest.raises(ValueError, match="auc"):
        auc(errors)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 180), min_size=1, max_size=30), st.floats(0.5, 90))
def test_auc_is_a_share_and_falls_with_the_errors(errors, threshold):
    (area,) = auc(errors, [threshold])
    assert 0 <= area <= 1
    (worse,) = auc([e + 1 for e in errors], [threshold])
    assert worse <= area + 1e-12


def test_errors_do_not_depend_on_world_or_scale():
    true = random_poses(4)
    moved = random_poses(1, seed=7) @ true
    moved[:, :3, 3] *= 3.7
    errors = pose_errors(moved, true)
    # float64 products of a few matrices; degrees.
    assert float(errors.rotation.max()) < 1e-10
    assert float(errors.translation.max()) < 1e-6


def test_opposite_translation_is_forgiven_only_by_the_folded_error():
    true = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    predicted = true.clone()
    true[1, 0, 3], predicted[1, 0, 3] = 1.0, -1.0
    errors = pose_errors(predicted, true)
    assert float(errors.translation) == pytest.approx(180)
    assert float(errors.maximum) == pytest.approx(180)
    assert float(errors.maximum_folded) == pytest.approx(0)


def test_known_rotation_and_direction():
    true = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    true[1, 0, 3] = 1.0
    predicted = true.clone()
    angle = torch.tensor([0, 0, 0, 0, 0, np.deg2rad(12.0)])
    predicted[1] = se3_exp(angle)
    predicted[1, :3, 3] = torch.tensor([1.0, 1.0, 0.0])
    errors = pose_errors(predicted, true)
    assert float(errors.rotation) == pytest.approx(12, abs=1e-9)
    assert float(errors.translation) == pytest.approx(45, abs=1e-9)


def test_missing_baseline_and_failed_prediction():
    true = random_poses(3)
    true[2, :3, 3] = true[0, :3, 3]
    predicted = true.clone()
    predicted[1] = torch.nan
    errors = pose_errors(predicted, true, pairs=[(0, 1), (0, 2)])
    assert errors.rotation[0] == 180
    assert errors.translation[0] == 180
    assert errors.translation_folded[0] == 90
    assert errors.failed.tolist() == [True, False]
    assert errors.translation[1].isnan()
    assert float(errors.maximum[1]) == pytest.approx(0, abs=1e-9)
    summary = summarise(errors)
    assert summary["translation_median"] == 180  # the pair without a baseline is not counted


def test_identity_prediction_has_no_direction():
    true = random_poses(2)
    errors = pose_errors(torch.eye(4, dtype=torch.float64).repeat(2, 1, 1), true)
    assert float(errors.translation) == 90


def test_focal_error_of_intrinsics():
    true = torch.diag(torch.tensor([0.8, 1.2, 1.0]))
    assert float(focal_errors(true * torch.tensor([1.1, 1.1, 1.0]), true)) == pytest.approx(10, abs=1e-4)
    assert float(focal_errors(true * torch.nan, true)) == float("inf")


def test_all_pairs_and_range_check():
    assert all_pairs(3) == [(0, 1), (0, 2), (1, 2)]
    with pytest.raises(ValueError, match="pairs of views"):
        pose_errors(random_poses(2), random_poses(2), pairs=[(0, 2)])


def test_summary_names():
    found = torch.zeros(2, dtype=torch.bool)
    errors = PoseErrors(
        torch.tensor([1.0, 3.0]), torch.tensor([170.0, 2.0]), torch.tensor([5.0, 15.0]), found
    )
    summary = summarise(errors, thresholds=[5.0])
    assert summary["rotation_median"] == 2
    assert summary["translation_median"] == 86
    assert summary["translation_folded_median"] == 6
    assert summary["focal_median"] == 10
    assert summary["pose_auc@5"] == pytest.approx(auc([170.0, 3.0], [5.0])[0])


def test_recall_curve_ends():
    curve = recall_curve([1.0, 2.0, 50.0], maximum=30, steps=31)
    assert curve[0] == 0
    assert curve[2] == pytest.approx(2 / 3)
    assert curve[-1] == pytest.approx(2 / 3)


def test_trajectory_error_after_similarity():
    true = random_poses(5)
    moved = random_poses(1, seed=3) @ true
    moved[:, :3, 3] *= 0.2
    assert trajectory_error(moved, true).relative < 1e-12
    collapsed = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    assert trajectory_error(collapsed, true).relative == 1.0
    noisy = true.clone()
    noisy[:, :3, 3] += 0.1 * torch.randn(5, 3, dtype=torch.float64)
    # The alignment minimises this very quantity, so it cannot exceed the noise itself.
    noise = float((noisy - true)[:, :3, 3].square().sum(-1).mean().sqrt())
    assert 0 < trajectory_error(noisy, true).rmse <= noise
    with pytest.raises(ValueError, match="v >= 3"):
        trajectory_error(true[:2], true[:2])
