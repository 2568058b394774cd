"""Posed depth maps to Gaussians."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, unproject_depth

# Standard deviation in pixels, and opacity: neighbours overlap enough to close the surface, and layers of
# different views still mix.
FOOTPRINT = 0.6
OPACITY = 0.9


def lift_depth(
    images: Float[Tensor, "v 3 h w"], depth: Float[Tensor, "v h w"], cameras: Cameras
) -> tuple[Gaussians, Int[Tensor, "n"]]:
    """One round Gaussian of the pixel's colour for each pixel of known depth.

    Args:
        images: In [0, 1].
        depth: z-depth in the unit of the poses; 0 or less where unknown.
        cameras: Of the images, [1, v, ...].

    Returns:
        The Gaussians (SH degree 0, batch of one) and the view that each comes from.

    Raises:
        ValueError: If sizes differ.
    """
    v, _, h, w = images.shape
    if depth.shape != (v, h, w) or cameras.world_from_camera.shape[:2] != (1, v):
        raise ValueError(
            f"lift_depth: expected depth {[v, h, w]} and cameras of shape [1, {v}, ...] for images "
            f"{list(images.shape)}, got {list(depth.shape)} and {list(cameras.world_from_camera.shape)}"
        )
    known = (depth > 0).flatten()
    means = unproject_depth(cameras, depth[None]).reshape(-1, 3)[known]
    view = torch.arange(v, device=depth.device)[:, None, None].expand(v, h, w).flatten()[known]
    focal = cameras.intrinsics[0, :, 0, 0] * w
    sigma = (FOOTPRINT * depth / focal[:, None, None]).flatten()[known]
    colors = images.permute(0, 2, 3, 1).reshape(-1, 3)[known]
    return Gaussians.spheres(means[None], sigma[None], colors[None], OPACITY), view
