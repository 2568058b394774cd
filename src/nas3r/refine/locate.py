"""Poses of views against a fixed scene."""

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, project
from nas3r.refine.anchored import anchor
from nas3r.refine.budget import decay
from nas3r.refine.fitted_views import FittedViews
from nas3r.refine.photometric import covered_error
from nas3r.refine.rig import Rig
from nas3r.render import render

MARGIN = 0.3  # of the image size: what may come into view while a camera moves


@torch.enable_grad()
def locate_views(
    gaussians: Gaussians,
    cameras: Cameras,
    images: Float[Tensor, "v 3 h w"],
    *,
    levels: tuple[float, ...] = (0.25, 0.5, 1.0),
    steps: int = 15,
    rate: float = 3e-3,
    ssim_weight: float = 0.2,
) -> Cameras:
    """Moves cameras until the renderings of a fixed scene match their images.

    This is how views that took no part in making a scene are compared with it when no poses are known: each
    view is first brought into the scene's frame, coarse to fine. Intrinsics stay.

    Args:
        gaussians: One scene.
        cameras: Where to start, [1, v, ...].
        images: What the cameras saw, in [0, 1].
        levels: Image scales, coarse to fine.
        steps: Of gradient descent at each level.
        rate: Step size of the first steps, in radians and median scene depths.
        ssim_weight: Weight of the structural term beside the absolute error.

    Returns:
        The cameras where they ended.
    """
    if cameras.num_views == 0 or steps == 0:
        return cameras
    gaussians = gaussians.detach()
    views = FittedViews(images, held_out=[])
    rig = Rig(cameras, unit=scene_unit(gaussians, cameras), fixed=None)
    for level in levels:
        photos = views.at(level)
        h, w = photos.shape[-2:]
        scenes = _as_seen(gaussians, rig.cameras().detach(), h, w)
        optimiser = torch.optim.Adam([rig.twists], lr=rate)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = rate * decay(step / steps)
            moving = rig.cameras()
            one_view_each = Cameras(moving.world_from_camera[0, :, None], moving.intrinsics[0, :, None])
            rendering = render(scenes, one_view_each, h, w)
            loss = covered_error(rendering.color[:, 0], rendering.alpha[:, 0], photos, ssim_weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return rig.cameras().detach()


def _as_seen(gaussians: Gaussians, cameras: Cameras, height: int, width: int) -> Gaussians:
    """For each view, as one batch: the Gaussians in and around its image, no finer than its pixels."""
    xy, depth = project(cameras, gaussians.means)
    near = (depth[0] > 0) & ((xy[0] - 0.5).abs() < 0.5 + MARGIN).all(-1)
    scenes = []
    for view, seen in enumerate(near):
        index = torch.full((int(seen.sum()),), view, device=seen.device)
        scenes.append(anchor(gaussians.select(seen), cameras, index).coarsened(height, width).gaussians)
    return _batch(scenes)


def _batch(scenes: list[Gaussians]) -> Gaussians:
    """Scenes of different numbers of Gaussians as one batch, filled up with transparent ones."""
    most = max(scene.num_gaussians for scene in scenes)

    def padded(scene: Gaussians, name: str) -> Tensor:
        value = getattr(scene, name)
        # Rotations and scales of zero are degenerate; ones are not.
        fill = value.new_full((1, most - scene.num_gaussians, *value.shape[2:]), float(name != "opacities"))
        return torch.cat([value, fill], 1)

    names = Gaussians.__dataclass_fields__
    return Gaussians(*(torch.cat([padded(scene, name) for scene in scenes]) for name in names))


def scene_unit(gaussians: Gaussians, cameras: Cameras) -> float:
    """Median distance between the cameras' mean place and the Gaussians: the yardstick of a scene."""
    if gaussians.num_gaussians == 0:
        return 1.0
    distance = (gaussians.means[0] - cameras.centers[0].mean(0)).norm(dim=-1)
    return max(distance.median().item(), 1e-6)
