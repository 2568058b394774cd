"""Gaussians that ride on the camera they were seen from.

A feed-forward network places a Gaussian at a pixel of one view and at a depth. If that view's pose or focal
length is wrong, so is the Gaussian, in the same way: while cameras are still being aligned, Gaussians must
move with their camera, or each view would hold its own Gaussians fast and with them its own error.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, multiply_quats, project, quat_from_matrix
from nas3r.geometry.projection import camera_rays
from nas3r.render.compositing import MAX_ALPHA

# Coarser sets merge Gaussians of one pixel only if their depths agree to about this ratio.
DEPTH_BIN = 0.1
# Standard deviation, in pixels, of a Gaussian that fills a pixel and closes the gap to the next.
PIXEL_FOOTPRINT = 0.6


@dataclass(frozen=True)
class AnchoredGaussians:
    """Gaussians of one scene and where their camera sees them.

    Attributes:
        gaussians: As they are with the start cameras.
        cameras: The start cameras.
        view: Which camera each Gaussian rides on [n].
        xy: Normalised image coordinates there [n, 2].
        depth: z-depth there [n].
    """

    gaussians: Gaussians
    cameras: Cameras
    view: Int[Tensor, "n"]
    xy: Float[Tensor, "n 2"]
    depth: Float[Tensor, "n"]

    def follow(self, cameras: Cameras, log_depth_change: Float[Tensor, "n"]) -> Gaussians:
        """The Gaussians once their cameras have moved.

        They keep their pixel and their size and orientation in it. Spherical harmonics are not rotated: the
        corrections are of a few degrees.

        Args:
            cameras: All cameras now.
            log_depth_change: Change of the logarithm of each Gaussian's depth.
        """
        poses = cameras.world_from_camera[0].index_select(0, self.view)
        intrinsics = cameras.intrinsics[0].index_select(0, self.view)
        ratio = log_depth_change.exp()
        rays = camera_rays(intrinsics, self.xy[:, None]).squeeze(1)
        in_camera = rays * (self.depth * ratio)[:, None]
        means = (poses[:, :3, :3] @ in_camera[..., None]).squeeze(-1) + poses[:, :3, 3]
        zoom = (_focal(self.cameras) / _focal(cameras)).index_select(0, self.view)
        turn = cameras.world_from_camera[0, :, :3, :3] @ self.cameras.world_from_camera[0, :, :3, :3].mT
        turn_quats = quat_from_matrix(turn).index_select(0, self.view)
        g = self.gaussians
        return replace(
            g,
            means=means[None],
            quats=multiply_quats(turn_quats, g.quats[0])[None],
            scales=g.scales * (ratio * zoom)[None, :, None],
        )

    def select(self, index: Tensor) -> "AnchoredGaussians":
        """Some of the Gaussians, by index or boolean mask."""
        return AnchoredGaussians(
            self.gaussians.select(index), self.cameras, self.view[index], self.xy[index], self.depth[index]
        )

    def coarsened(self, height: int, width: int) -> "AnchoredGaussians":
        """Fewer, larger Gaussians: one for each pixel of a `height` x `width` image of each view.

        Of the Gaussians in one pixel at one depth, the most opaque one gives place and shape and all together
        give the colour; size and opacity are such that it covers what they covered, up to the pixel.
        """
        size = self.xy.new_tensor([width, height])
        cell = (self.xy * size).floor().clamp(-width, 2 * width)
        depth_bin = (self.depth.log() / DEPTH_BIN).floor()
        keys = torch.cat([self.view[:, None], cell, depth_bin[:, None]], 1).long()
        _, group = torch.unique(keys, dim=0, return_inverse=True)
        count = torch.bincount(group)
        opacities = self.gaussians.opacities[0]
        led = self.select(_most_opaque(opacities, group, len(count)))

        area = self.gaussians.scales[0].prod(-1) ** (2 / 3)
        pixel = led.depth / (_focal(self.cameras).index_select(0, led.view) * (width * height) ** 0.5)
        led_area = led.gaussians.scales[0].prod(-1) ** (2 / 3)
        new_area = torch.minimum(led_area * count, torch.maximum(led_area, (PIXEL_FOOTPRINT * pixel) ** 2))
        covered = _sum_groups(opacities * area, group, len(count))
        weight = opacities * area + 1e-20
        share = weight / _sum_groups(weight, group, len(count)).index_select(0, group)
        gaussians = replace(
            led.gaussians,
            sh=_sum_groups(share[:, None, None] * self.gaussians.sh[0], group, len(count))[None],
            opacities=(covered / new_area).clamp(max=MAX_ALPHA)[None],
            scales=led.gaussians.scales * (new_area / led_area).sqrt()[None, :, None],
        )
        return replace(led, gaussians=gaussians)


def anchor(gaussians: Gaussians, cameras: Cameras, view: Int[Tensor, "n"]) -> AnchoredGaussians:
    """Ties each Gaussian to a camera.

    Raises:
        ValueError: If a Gaussian lies behind its camera.
    """
    xy, depth = project(cameras, gaussians.means)
    rows = torch.arange(gaussians.num_gaussians, device=view.device)
    xy, depth = xy[0, view, rows], depth[0, view, rows]
    if behind := int((depth <= 0).sum()):
        raise ValueError(f"anchors: {behind} Gaussians lie behind the camera they are tied to")
    return AnchoredGaussians(gaussians, cameras, view, xy, depth)


def nearest_views(gaussians: Gaussians, cameras: Cameras, among: list[int]) -> Int[Tensor, "n"]:
    """The view that sees each Gaussian from nearest, -1 for those that no view sees."""
    xy, depth = project(cameras.views(among), gaussians.means)
    seen = (depth > 0) & (xy >= 0).all(-1) & (xy <= 1).all(-1)
    distance = torch.where(seen, depth, torch.full_like(depth, torch.inf))[0]
    best, index = distance.min(0)
    views = torch.tensor(among, device=index.device)[index]
    return torch.where(best.isfinite(), views, torch.full_like(views, -1))


def _sum_groups(values: Float[Tensor, "n *k"], group: Int[Tensor, "n"], groups: int) -> Float[Tensor, "g *k"]:
    """Sums of the rows of each group."""
    return values.new_zeros(groups, *values.shape[1:]).index_add(0, group, values)


def _focal(cameras: Cameras) -> Float[Tensor, "v"]:
    k = cameras.intrinsics[0]
    return (k[:, 0, 0] * k[:, 1, 1]).sqrt()


def _most_opaque(opacities: Tensor, group: Tensor, groups: int) -> Int[Tensor, "g"]:
    """Index of the first most opaque member of each group."""
    peak = opacities.new_zeros(groups).scatter_reduce(0, group, opacities, "amax")
    is_peak = opacities == peak.index_select(0, group)
    candidates = torch.where(is_peak, torch.arange(len(group), device=group.device), len(group))
    first = torch.full((groups,), len(group), device=group.device)
    return first.scatter_reduce(0, group, candidates, "amin")
