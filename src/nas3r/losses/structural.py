"""Download-free perceptual term: structural similarity and image gradients at several scales."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.losses.blurring import blur

WINDOW = 11  # pixels; with SIGMA the window of Wang et al., "Image Quality Assessment", TIP 2004, sec. III.B
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2  # ibid., for a data range of 1


def _gaussian_window(like: Tensor) -> Float[Tensor, "k"]:
    x = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - (WINDOW - 1) / 2
    window = torch.exp(-(x**2) / (2 * SIGMA**2))
    return window / window.sum()


def _blur(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Gaussian blur without padding."""
    if images.is_cuda or images.dtype != torch.float32:
        return blur_by_convolution(images)
    return blur(images.flatten(0, 1), _gaussian_window(images)).unflatten(0, images.shape[:2])


def blur_by_convolution(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Gaussian blur without padding, for any dtype and device; the twin of `blurring.blur`."""
    n, c, h, w = images.shape
    window = _gaussian_window(images)
    x = images.reshape(n * c, 1, h, w)
    x = F.conv2d(F.conv2d(x, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return x.view(n, c, *x.shape[-2:])


def ssim(
    a: Float[Tensor, "n c h w"], b: Float[Tensor, "n c h w"], *, sample_covariance: bool = False
) -> Float[Tensor, "n"]:
    """Structural similarity of images in [0, 1], over windows that lie inside the image.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity",
    TIP 2004, eq. 13.

    Args:
        a: Some images.
        b: What to compare them with.
        sample_covariance: Whether variances are corrected by n / (n - 1) for the n pixels of a window, as
            published evaluations do; window-weighted otherwise.

    Raises:
        ValueError: If an image side is shorter than the 11-pixel window.
    """
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(
            f"ssim: expected images of at least {WINDOW} pixels a side, got {list(a.shape[-2:])}"
        )
    mu_a, mu_b, aa, bb, ab = _blur(torch.cat([a, b, a * a, b * b, a * b], 1)).chunk(5, 1)
    correction = WINDOW**2 / (WINDOW**2 - 1) if sample_covariance else 1.0
    luminance = (2 * mu_a * mu_b + C1) / (mu_a**2 + mu_b**2 + C1)
    covariance, variances = ab - mu_a * mu_b, aa - mu_a**2 + bb - mu_b**2
    contrast_structure = (2 * (correction * covariance) + C2) / (correction * variances + C2)
    return (luminance * contrast_structure).mean((1, 2, 3))


def gradient_difference(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Mean absolute difference of the images' forward differences, horizontal plus vertical."""
    difference = a - b
    dx = (difference[..., :, 1:] - difference[..., :, :-1]).abs().mean((1, 2, 3))
    dy = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean((1, 2, 3))
    return dx + dy


def structural_distance(
    a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"], *, scales: int = 3
) -> Float[Tensor, "n"]:
    """(1 - SSIM) / 2 plus the gradient difference, averaged over an image pyramid; 0 for equal images.

    Halvings that would make the image smaller than the SSIM window are left out.

    Raises:
        ValueError: If `scales` is below 1 or the images are smaller than the SSIM window.
    """
    if scales < 1:
        raise ValueError(f"structural_distance: expected scales >= 1, got {scales}")
    terms = []
    for _ in range(scales):
        terms.append((1 - ssim(a, b)) / 2 + gradient_difference(a, b))
        if min(a.shape[-2:]) // 2 < WINDOW:
            break
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return torch.stack(terms).mean(0)
