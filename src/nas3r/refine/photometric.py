"""The error that refinement lowers, and the figure it reports."""

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.losses.photometric import image_psnr
from nas3r.losses.structural import WINDOW, ssim
from nas3r.render import render


def photometric_error(
    rendered: Float[Tensor, "v 3 h w"], photos: Float[Tensor, "v 3 h w"], ssim_weight: float
) -> Float[Tensor, ""]:
    """(1 - w) * mean absolute error + w * (1 - SSIM), as in 3DGS (Kerbl et al. 2023, eq. 7)."""
    absolute = (rendered - photos).abs().mean()
    if ssim_weight == 0 or min(photos.shape[-2:]) < WINDOW:
        return absolute
    return (1 - ssim_weight) * absolute + ssim_weight * (1 - ssim(rendered, photos).mean())


def covered_error(
    rendered: Float[Tensor, "v 3 h w"],
    alpha: Float[Tensor, "v h w"],
    photos: Float[Tensor, "v 3 h w"],
    ssim_weight: float,
) -> Float[Tensor, ""]:
    """The error of the part of the images that is covered.

    Both sides are seen through the rendering's own alpha. It is a weight, not something to be learned:
    without gradient, or covering nothing would be the best rendering.
    """
    weight = alpha.detach()[:, None]
    coverage = weight.mean().clamp_min(1e-3)
    return photometric_error(rendered, weight * photos, ssim_weight) / coverage


@torch.no_grad()
def views_psnr(gaussians: Gaussians, cameras: Cameras, photos: Float[Tensor, "v 3 h w"]) -> float:
    """Mean PSNR in dB of renderings against photos, view by view to save memory."""
    h, w = photos.shape[-2:]
    values = [
        image_psnr(render(gaussians, cameras.views([i]), h, w).color[0, 0], photos[i])
        for i in range(cameras.num_views)
    ]
    return torch.stack(values).mean().item()
