"""Differences between images as the field's evaluations compute them: in double precision."""

from jaxtyping import Float
from torch import Tensor

from nas3r.losses import image_psnr, structural


def _check_pair(name: str, predicted: Tensor, true: Tensor) -> None:
    if predicted.shape != true.shape or predicted.ndim < 3:
        raise ValueError(
            f"{name}: expected two equal shapes [..., c, h, w], got {list(predicted.shape)} and "
            f"{list(true.shape)}"
        )


def psnr(predicted: Float[Tensor, "*b c h w"], true: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b"]:
    """Peak signal-to-noise ratio in dB of images clipped to [0, 1]; infinite for equal images."""
    _check_pair("psnr", predicted, true)
    return image_psnr(predicted.double(), true.double(), least_error=0.0)


def ssim(predicted: Float[Tensor, "*b c h w"], true: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b"]:
    """Structural similarity, mean over channels and the pixels whose whole window lies in the image.

    With the choices of scikit-image's `gaussian_weights=True`: 11x11 Gaussian window of sigma 1.5, sample
    covariance, data range 1. Values are not clipped, as in the published evaluation.

    Raises:
        ValueError: If shapes differ or an image is smaller than the window.
    """
    _check_pair("ssim", predicted, true)
    a, b = (x.double().reshape(-1, *true.shape[-3:]) for x in (predicted, true))
    return structural.ssim(a, b, sample_covariance=True).reshape(true.shape[:-3])
