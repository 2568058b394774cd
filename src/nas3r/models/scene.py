"""From raw head outputs and cameras to depth maps and Gaussians."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, pixel_grid, transform_points, unproject
from nas3r.models.config import ModelConfig
from nas3r.models.heads.depth import activate_depth, canonical_points
from nas3r.models.heads.gaussian import activate_opacity, activate_quats, activate_scales, activate_sh

# Footprints of points at or behind their camera (possible with regressed points) are taken at this depth.
_MIN_FOOTPRINT_DEPTH = 1e-3


def build_scene(
    config: ModelConfig,
    raw_depth: Float[Tensor, "b v c h w"],
    raw_gaussians: Float[Tensor, "b v g h w"],
    images: Float[Tensor, "b v 3 h w"],
    cameras: Cameras,
    depth_factor: Float[Tensor, "b v h w"] | None = None,
) -> tuple[Float[Tensor, "b v h w"], Gaussians]:
    """Depth maps of the context views, and one Gaussian per pixel (or per cell of `gaussian_stride` pixels).

    Args:
        config: Activations and conventions.
        raw_depth: Output of the depth head.
        raw_gaussians: Output of the Gaussian head.
        images: The context views.
        cameras: Their predicted cameras.
        depth_factor: What to multiply depth by, where it is not points that are regressed.
    """
    if config.points == "depth":
        depth = view_depths(config, raw_depth, depth_factor)
        cell_depth = cells(config, depth[:, :, None])[:, :, 0]
        means = _lift(config, cell_depth, cameras)
    else:
        points = canonical_points(raw_depth[:, :, :3], config.pixel_offset)  # without confidence
        depth = _depth_of(points, cameras)
        means = cells(config, points).flatten(3).mT
        cell_depth = cells(config, depth[:, :, None])[:, :, 0]
    cell_height = cell_depth.shape[-2] * cameras.intrinsics[..., 1, 1]
    footprint = cell_depth.flatten(2).clamp_min(_MIN_FOOTPRINT_DEPTH) / cell_height[..., None]
    raw = cells(config, raw_gaussians).flatten(3).mT
    colors = cells(config, images).flatten(3).mT
    rotation = cameras.world_from_camera[:, :, None, :3, :3]
    return depth, Gaussians(
        means=means.flatten(1, 2),
        quats=activate_quats(config, raw, rotation).flatten(1, 2),
        scales=activate_scales(config, raw, footprint).flatten(1, 2),
        opacities=activate_opacity(raw).flatten(1, 2),
        sh=activate_sh(config, raw, colors).flatten(1, 2),
    )


def view_depths(
    config: ModelConfig,
    raw_depth: Float[Tensor, "b v c h w"],
    factor: Float[Tensor, "b v h w"] | None = None,
) -> Float[Tensor, "b v h w"]:
    """z-depth of the context views, times a factor if there is one.

    Of regressed points in the first camera, which needs no others.
    """
    if config.points == "depth":
        depth = activate_depth(config, raw_depth[:, :, 0])
        return depth if factor is None else factor * depth
    return canonical_points(raw_depth[:, :, :3], config.pixel_offset)[:, :, 2].clamp_min(_MIN_FOOTPRINT_DEPTH)


def cells(config: ModelConfig, maps: Float[Tensor, "b v c h w"]) -> Float[Tensor, "b v c ch cw"]:
    """Maps averaged over the cells that get one Gaussian each."""
    if config.gaussian_stride == 1:
        return maps
    return F.avg_pool2d(maps.flatten(0, 1), config.gaussian_stride).unflatten(0, maps.shape[:2])


def _lift(config: ModelConfig, depth: Float[Tensor, "b v h w"], cameras: Cameras) -> Float[Tensor, "b v n 3"]:
    h, w = depth.shape[-2:]
    grid = pixel_grid(h, w, pixel_offset=config.pixel_offset, device=depth.device).reshape(1, 1, h * w, 2)
    depth = depth.flatten(2)
    return unproject(cameras, grid.expand(*depth.shape, 2), depth)


def _depth_of(points: Float[Tensor, "b v 3 h w"], cameras: Cameras) -> Float[Tensor, "b v h w"]:
    in_camera = transform_points(cameras.camera_from_world, points.flatten(3).mT)
    return in_camera[..., 2].unflatten(-1, points.shape[-2:])
