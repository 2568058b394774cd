"""Errors of predicted depth maps: pure functions of z-depths and a valid mask."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


def valid_mask(true: Float[Tensor, "*b h w"]) -> Bool[Tensor, "*b h w"]:
    """Where the truth is known: finite and positive."""
    return true.isfinite() & (true > 0)


def align_median(predicted: Float[Tensor, "n"], true: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Prediction times median(true) / median(predicted) (Zhou et al., "SfMLearner", CVPR 2017)."""
    return predicted * (true.median() / predicted.median())


def align_scale_and_shift(predicted: Float[Tensor, "n"], true: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Least-squares a * predicted + b, in depth, not disparity (Ke et al., "Marigold", CVPR 2024, sec. 4.2).

    The result is clipped to the range of the truth, as evaluations do: a fit may leave depths at or below
    zero, which have no ratio to anything. A constant prediction becomes the mean of the truth.
    """
    return _least_squares(predicted, true).clamp(true.min(), true.max())


def _least_squares(predicted: Float[Tensor, "n"], true: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    p, t = predicted - predicted.mean(), true - true.mean()
    variance = (p * p).sum()
    # Relative to the square of the values: the variance that rounding leaves in a constant map.
    varies = variance > 1e-20 * (predicted * predicted).sum()
    a = torch.where(varies, (p * t).sum() / variance.clamp_min(torch.finfo(p.dtype).tiny), 0.0)
    return a * p + true.mean()


def align_disparity(predicted: Float[Tensor, "n"], true: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Depth whose inverse is the least-squares a / predicted + b (Ranftl et al., "MiDaS", TPAMI 2022, eq. 1).

    The result is clipped to the range of the truth. The only alignment that makes sense where the truth
    itself is a disparity with unknown offset.
    """
    return 1 / align_scale_and_shift(1 / predicted, 1 / true)


def ratio_errors(predicted: Float[Tensor, "n"], true: Float[Tensor, "n"]) -> dict[str, float]:
    """`abs_rel` = mean |p - t| / t; `delta_1.25` and `tau` = share of max(p/t, t/p) below 1.25 and 1.03.

    Sources: Eigen et al., NIPS 2014 (abs rel, delta); Schroeppel et al., "A Benchmark and a Baseline for
    Robust Multi-view Depth Estimation", 3DV 2022 (inliers at 3 %).
    """
    ratio = torch.maximum(predicted / true, true / predicted)
    return {
        "abs_rel": float(((predicted - true).abs() / true).mean()),
        "delta_1.25": float((ratio < 1.25).double().mean()),
        "tau": float((ratio < 1.03).double().mean()),
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2.0)[inverse]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def spearman(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> float:
    """Rank correlation; 0 if one side is constant."""
    return _correlation(_ranks(a.double().cpu().numpy()), _ranks(b.double().cpu().numpy()))


def partial_spearman(a: Float[Tensor, "n"], b: Float[Tensor, "n"], given: Float[Tensor, "n"]) -> float:
    """Rank correlation of `a` and `b` with what both share with `given` removed.

    With the data set's mean depth map as `given` this is what a prediction knows about THIS image: a model
    that always predicts "floor near, ceiling far" scores well on `spearman` and 0 here. It is the
    correlation of the residuals after regressing both sides' ranks on the ranks of `given`.
    """
    ra, rb, rg = (_ranks(x.double().cpu().numpy()) for x in (a, b, given))
    ra, rb, rg = ra - ra.mean(), rb - rb.mean(), rg - rg.mean()
    norm = float((rg * rg).sum())
    if norm == 0:
        return _correlation(ra, rb)
    residual_a, residual_b = (r - (r * rg).sum() / norm * rg for r in (ra, rb))
    # What rounding leaves of a map that equals `given` is not a residual.
    tiny = 1e-12 * norm
    if (residual_a**2).sum() <= tiny or (residual_b**2).sum() <= tiny:
        return 0.0
    return _correlation(residual_a, residual_b)


_ALIGNMENTS = {"median": align_median, "scale_and_shift": align_scale_and_shift, "disparity": align_disparity}


def depth_errors(
    predicted: Float[Tensor, "h w"],
    true: Float[Tensor, "h w"],
    mean_map: Float[Tensor, "h w"] | None = None,
    known_up_to: Literal["scale", "disparity_shift"] = "scale",
) -> dict[str, float]:
    """All depth errors of one view, over the pixels whose truth is known.

    Args:
        predicted: z-depth in any unit; must be finite and positive where the truth is known.
        true: z-depth, 0 or not finite where unknown.
        mean_map: The data set's image-independent mean depth map (`mean_depth_map`), for the last figure.
        known_up_to: "disparity_shift" where the inverse of the truth has an unknown offset: then only the
            disparity alignment and the rank correlations mean anything, and only they are returned.

    Returns:
        `median/abs_rel`, `median/delta_1.25`, `median/tau`, the same under `scale_and_shift/` and
        `disparity/`, `spearman`, and `spearman_given_mean` if a mean map is given.

    Raises:
        ValueError: If shapes differ, no pixel is valid, or the prediction is not finite and positive there.
    """
    if predicted.shape != true.shape:
        raise ValueError(
            f"depth_errors: expected two equal shapes, got {list(predicted.shape)} and {list(true.shape)}"
        )
    mask = valid_mask(true)
    p, t = predicted.detach()[mask].double().cpu(), true[mask].double().cpu()
    if not len(t):
        raise ValueError("depth_errors: the truth has no valid pixel")
    if not bool((p.isfinite() & (p > 0)).all()):
        raise ValueError("depth_errors: expected a finite, positive prediction wherever the truth is known")
    out = {}
    names = _ALIGNMENTS if known_up_to == "scale" else ("disparity",)
    for name in names:
        errors = ratio_errors(_ALIGNMENTS[name](p, t), t)
        out.update({f"{name}/{key}": value for key, value in errors.items()})
    out["spearman"] = spearman(p, t)
    if mean_map is not None:
        out["spearman_given_mean"] = partial_spearman(p, t, mean_map[mask].double().cpu())
    return out


def mean_depth_map(maps: Sequence[Float[Tensor, "h w"]]) -> Float[Tensor, "h w"]:
    """Image-independent depth: the mean of log depth at each pixel after dividing each map by its median.

    Pixels that no map knows get the overall mean. The result has no unit (median about 1).

    Raises:
        ValueError: Without a map that has valid pixels, or with maps of several sizes.
    """
    shapes = {tuple(m.shape) for m in maps}
    if len(shapes) != 1:
        raise ValueError(f"mean_depth_map: expected maps of one size, got {sorted(shapes) or 'none'}")
    return mean_map_from_sums(torch.stack([log_depth_sums(m) for m in maps]).sum(0))


def log_depth_sums(depth: Float[Tensor, "h w"]) -> Float[Tensor, "2 h w"]:
    """What one map adds to a mean map: its log depth over its median where known, and where that is."""
    mask = valid_mask(depth)
    log = torch.where(mask, depth.double(), torch.ones_like(depth, dtype=torch.float64)).log()
    if bool(mask.any()):
        log = log - log[mask].median()
    return torch.stack([torch.where(mask, log, torch.zeros_like(log)), mask.double()])


def mean_map_from_sums(sums: Float[Tensor, "2 h w"]) -> Float[Tensor, "h w"]:
    """The mean map of summed `log_depth_sums`.

    Raises:
        ValueError: If no map had a valid pixel.
    """
    total, count = sums
    if not bool(count.any()):
        raise ValueError("mean_depth_map: no map has a valid pixel")
    overall = total.sum() / count.sum()
    return torch.where(count > 0, total / count.clamp_min(1), overall).exp()
