"""Depth errors against hand-computed values and SciPy."""

import numpy as np
import pytest
import torch
from scipy import stats

from nas3r.evaluation.depth import (
    align_disparity,
    align_median,
    align_scale_and_shift,
    depth_errors,
    mean_depth_map,
    partial_spearman,
    spearman,
)


def random_depth(seed: int, height: int = 12, width: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1 + 4 * torch.rand(height, width, generator=generator, dtype=torch.float64)


def test_scaled_prediction_is_perfect_after_median_alignment():
    true = random_depth(0)
    errors = depth_errors(7 * true, true)
    assert errors["median/abs_rel"] == pytest.approx(0, abs=1e-12)
    assert errors["median/delta_1.25"] == errors["median/tau"] == 1
    assert errors["spearman"] == pytest.approx(1)


def test_affine_prediction_is_perfect_only_after_scale_and_shift():
    true = random_depth(0)
    errors = depth_errors(0.3 * true + 2, true)
    assert errors["scale_and_shift/abs_rel"] == pytest.approx(0, abs=1e-12)
    assert errors["median/abs_rel"] > 0.05


def test_errors_by_hand():
    true = torch.tensor([[1.0, 2.0, 4.0, 0.0]])
    predicted = torch.tensor([[1.0, 2.0, 5.2, 9.0]])  # medians agree: no scaling; the last pixel is unknown
    errors = depth_errors(predicted, true)
    # The inputs are float32, so 5.2 is 5.2 to 5e-8.
    assert errors["median/abs_rel"] == pytest.approx(0.3 / 3, rel=1e-6)
    assert errors["median/delta_1.25"] == pytest.approx(2 / 3)
    assert errors["median/tau"] == pytest.approx(2 / 3)


def test_alignments_of_a_constant():
    true = random_depth(1).flatten()
    constant = torch.full_like(true, 3.3)
    assert torch.allclose(align_median(constant, true), true.median().expand_as(true))
    assert torch.allclose(align_scale_and_shift(constant, true), true.mean().expand_as(true))


def test_spearman_with_ties_is_scipys():
    a = torch.randint(0, 5, (200,)).double()
    b = torch.randn(200).double() + a
    # Same definition in float64.
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert spearman(torch.ones(5), torch.arange(5.0)) == 0


def test_partial_spearman_is_the_textbook_formula():
    g = torch.randn(500).double()
    a, b = g + torch.randn(500), 2 * g + torch.randn(500)
    r_ab, r_ag, r_bg = (stats.spearmanr(x, y).statistic for x, y in ((a, b), (a, g), (b, g)))
    expected = (r_ab - r_ag * r_bg) / np.sqrt((1 - r_ag**2) * (1 - r_bg**2))
    assert partial_spearman(a, b, g) == pytest.approx(expected, abs=1e-12)


def test_the_mean_map_knows_nothing_about_an_image():
    mean_map = random_depth(2)
    true = mean_map * torch.exp(0.1 * torch.randn(12, 10))
    errors = depth_errors(5 * mean_map, true, mean_map)
    assert errors["spearman"] > 0.8
    assert errors["spearman_given_mean"] == 0
    assert depth_errors(true, true, mean_map)["spearman_given_mean"] == pytest.approx(1)


def test_mean_map_ignores_scale_and_unknown_pixels():
    base = random_depth(3)
    holes = base.clone()
    holes[0, 0] = 0
    mean = mean_depth_map([4 * base, base])
    assert torch.allclose(mean / mean.median(), base / base.median())
    with_hole = mean_depth_map([holes, holes])
    assert bool(with_hole.isfinite().all())
    assert with_hole[0, 0] > 0


def test_bad_input_is_named():
    true = random_depth(0)
    with pytest.raises(ValueError, match="no valid pixel"):
        depth_errors(true, torch.zeros_like(true))
    with pytest.raises(ValueError, match="finite, positive"):
        depth_errors(-true, true)
    with pytest.raises(ValueError, match="one size"):
        mean_depth_map([true, true[:5]])


def test_unknown_disparity_offset():
    true = random_depth(0)
    predicted = 1 / (0.3 / true + 0.1)  # affine in disparity
    errors = depth_errors(predicted, true, known_up_to="disparity_shift")
    assert errors["disparity/abs_rel"] == pytest.approx(0, abs=1e-12)
    assert errors["spearman"] == pytest.approx(1)
    assert not any(key.startswith(("median", "scale")) for key in errors)
    assert depth_errors(predicted, true)["disparity/tau"] == 1


def test_fits_stay_within_the_range_of_the_truth():
    true = random_depth(4).flatten()
    wild = torch.randn(len(true)).double().exp() ** 4
    for align in (align_scale_and_shift, align_disparity):
        aligned = align(wild, true)
        assert true.min() <= aligned.min()
        assert aligned.max() <= true.max() * (1 + 1e-12)  # 1 / (1 / x)
