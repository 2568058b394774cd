"""Maps over the image plane: values between pixels, and Gaussian blur."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def sample_maps(maps: Float[Tensor, "b v c h w"], xy: Float[Tensor, "b v n 2"]) -> Float[Tensor, "b v c n"]:
    """Bilinear values at normalised image coordinates, the border repeated outside."""
    grid = (2 * xy - 1).flatten(0, 1)[:, None]
    values = F.grid_sample(maps.flatten(0, 1), grid, align_corners=False, padding_mode="border")
    return values[:, :, 0].unflatten(0, maps.shape[:2])


def gaussian_blur(maps: Float[Tensor, "b v h w"], sigma: float) -> Float[Tensor, "b v h w"]:
    """Separable Gaussian blur with zeros outside.

    Args:
        maps: What to blur.
        sigma: Standard deviation in pixels of the maps; the kernel reaches three of them.
    """
    reach = math.ceil(3 * sigma)
    line = torch.arange(-reach, reach + 1, device=maps.device)
    kernel = torch.exp(-0.5 * (line / sigma).square())
    kernel = (kernel / kernel.sum()).to(maps.dtype)
    flat = maps.flatten(0, 1)[:, None]
    flat = F.conv2d(flat, kernel[None, None, None], padding=(0, reach))
    blurred = F.conv2d(flat, kernel[None, None, :, None], padding=(reach, 0))
    return blurred[:, 0].unflatten(0, maps.shape[:2])
