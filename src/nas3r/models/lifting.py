"""From raw head outputs and cameras to depth maps and Gaussians."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, pixel_grid, transform_points, unproject
from nas3r.models.config import ModelConfig
from nas3r.models.heads.depth import canonical_points
from nas3r.models.heads.gaussian import (
    activate_opacity,
    activate_quats,
    activate_scales,
    activate_sh,
)

# Footprints of points at or behind their camera (possible with regressed points) are taken at this depth.
_MIN_FOOTPRINT_DEPTH = 1e-3


def lift_gaussians(
    model: ModelConfig,
    raw_depth: Float[Tensor, "b v c h w"],
    depth: Float[Tensor, "b v h w"],
    raw_gaussians: Float[Tensor, "b v g h w"],
    images: Float[Tensor, "b v 3 h w"],
    cameras: Cameras,
) -> tuple[Float[Tensor, "b v h w"], Gaussians]:
    """Depth maps of the context views, and one Gaussian per pixel (or per square of `config.stride` pixels).

    Args:
        model: What the heads' outputs mean.
        raw_depth: Output of the depth head, of which regressed points are made.
        depth: z-depth of the context views, which is lifted where no points are regressed.
        raw_gaussians: Output of the Gaussian head.
        images: The context views.
        cameras: Their predicted cameras.
    """

    config = model.gaussians

    def squares(maps: Float[Tensor, "b v c h w"]) -> Float[Tensor, "b v c ch cw"]:
        """Means over the squares that get one Gaussian each."""
        if config.stride == 1:
            return maps
        return F.avg_pool2d(maps.flatten(0, 1), config.stride).unflatten(0, maps.shape[:2])

    if model.depth.lifted:
        square_depth = squares(depth[:, :, None])[:, :, 0]
        means = _lifted(square_depth, cameras, model.depth.pixel_offset)
    else:
        points = canonical_points(raw_depth[:, :, :3], model.depth.pixel_offset)  # without confidence
        depth = _depth_of(points, cameras)
        means = squares(points).flatten(3).mT
        square_depth = squares(depth[:, :, None])[:, :, 0]
    square_height = square_depth.shape[-2] * cameras.intrinsics[..., 1, 1]
    footprint = square_depth.flatten(2).clamp_min(_MIN_FOOTPRINT_DEPTH) / square_height[..., None]
    raw = squares(raw_gaussians).flatten(3).mT
    colors = squares(images).flatten(3).mT
    rotation = cameras.world_from_camera[:, :, None, :3, :3]
    return depth, Gaussians(
        means=means.flatten(1, 2),
        quats=activate_quats(config, raw, rotation).flatten(1, 2),
        scales=activate_scales(config, raw, footprint).flatten(1, 2),
        opacities=activate_opacity(raw).flatten(1, 2),
        sh=activate_sh(config, raw, colors).flatten(1, 2),
    )


def _lifted(
    depth: Float[Tensor, "b v h w"], cameras: Cameras, pixel_offset: float
) -> Float[Tensor, "b v n 3"]:
    """World points of depth maps: from the camera of each view to the world of all."""
    h, w = depth.shape[-2:]
    grid = pixel_grid(h, w, pixel_offset=pixel_offset, device=depth.device).reshape(1, 1, h * w, 2)
    depth = depth.flatten(2)
    return unproject(cameras, grid.expand(*depth.shape, 2), depth)


def _depth_of(points: Float[Tensor, "b v 3 h w"], cameras: Cameras) -> Float[Tensor, "b v h w"]:
    in_camera = transform_points(cameras.camera_from_world, points.flatten(3).mT)
    return in_camera[..., 2].unflatten(-1, points.shape[-2:])
