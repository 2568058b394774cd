"""Differences between images: PSNR, SSIM and LPIPS as the field's evaluations compute them."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_WINDOW = 11  # pixels: sigma 1.5 cut at 3.5 sigma
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2  # for a data range of 1


def _check_pair(name: str, predicted: Tensor, true: Tensor) -> None:
    if predicted.shape != true.shape or predicted.ndim < 3:
        raise ValueError(
            f"{name}: expected two equal shapes [..., c, h, w], got {list(predicted.shape)} and "
            f"{list(true.shape)}"
        )


def psnr(predicted: Float[Tensor, "*b c h w"], true: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b"]:
    """Peak signal-to-noise ratio in dB of images clipped to [0, 1]; infinite for equal images."""
    _check_pair("psnr", predicted, true)
    difference = predicted.double().clamp(0, 1) - true.double().clamp(0, 1)
    return -10 * difference.square().mean((-1, -2, -3)).log10()


def _gaussian_window(like: Tensor) -> Tensor:
    x = torch.arange(_WINDOW, dtype=like.dtype, device=like.device) - _WINDOW // 2
    weights = torch.exp(-0.5 * (x / _SIGMA) ** 2)
    return weights / weights.sum()


def ssim(predicted: Float[Tensor, "*b c h w"], true: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b"]:
    """Structural similarity, mean over channels and the pixels whose whole window lies in the image.

    Source: Wang et al., "Image Quality Assessment", TIP 2004, with the choices of scikit-image's
    `gaussian_weights=True`: 11x11 Gaussian window of sigma 1.5, sample covariance, data range 1. Values are
    not clipped, as in the published evaluation.

    Raises:
        ValueError: If shapes differ or an image is smaller than the window.
    """
    _check_pair("ssim", predicted, true)
    height, width = true.shape[-2:]
    if min(height, width) < _WINDOW:
        raise ValueError(f"ssim: expected images of at least {_WINDOW} px, got {width}x{height}")
    a, b = (x.double().reshape(-1, 1, height, width) for x in (predicted, true))
    window = _gaussian_window(a)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, window[None, None, None, :]), window[None, None, :, None])

    mean_a, mean_b = blur(a), blur(b)
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    var_a = unbiased * (blur(a * a) - mean_a**2)
    var_b = unbiased * (blur(b * b) - mean_b**2)
    covariance = unbiased * (blur(a * b) - mean_a * mean_b)
    similarity = ((2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)) / (
        (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    )
    return similarity.mean((-1, -2, -3)).reshape(true.shape[:-2]).mean(-1)
