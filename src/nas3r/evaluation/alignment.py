"""Test-time alignment of a target's pose: the scene stays, the camera moves until the rendering fits."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, se3_exp, transform_points
from nas3r.render import render

STEPS = 100
RATE = 0.005

ImageLoss = Callable[[Float[Tensor, "1 3 h w"], Float[Tensor, "1 3 h w"]], Tensor]


def squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared error."""
    return (image - target).square().mean()


def align_pose(
    gaussians: Gaussians,
    camera: Cameras,
    target: Float[Tensor, "3 h w"],
    *,
    loss: ImageLoss = squared_error,
    steps: int = STEPS,
    rate: float = RATE,
    near: float = 0.01,
) -> Cameras:
    """The rigid motion near a predicted one at which the rendering fits the target best.

    Adam on a twist in se(3), so that the result is always a rigid motion; the intrinsics stay. The
    published evaluation moves the 16 entries of the matrix freely and returns the rendering before the last
    step; here it is the pose with the smallest loss among all that were tried, the start included. Number of
    steps and rate are the published ones; translations are measured in median depths of the scene, so
    that the result does not depend on its scale.

    Args:
        gaussians: One scene.
        camera: Start, [1, 1, ...].
        target: The image.
        loss: Of rendering and target, both [1, 3, h, w].
        steps: Of Adam.
        rate: Step size, in radians and median depths.
        near: See `render`.
    """
    height, width = target.shape[-2:]
    gaussians, camera = gaussians.detach(), camera.detach()
    unit = _median_depth(gaussians, camera)
    scale = camera.intrinsics.new_tensor([unit, unit, unit, 1, 1, 1])
    twist = torch.zeros_like(scale).requires_grad_()
    optimiser = torch.optim.Adam([twist], lr=rate)
    best, best_loss = camera.world_from_camera, torch.inf
    for _ in range(steps + 1):
        pose = camera.world_from_camera @ se3_exp(twist * scale)
        image = render(gaussians, Cameras(pose, camera.intrinsics), height, width, near=near).color[:, 0]
        value = loss(image, target[None])
        if float(value.detach()) < best_loss:
            best, best_loss = pose.detach(), float(value.detach())
        if not value.requires_grad:  # nothing of the scene is in sight
            break
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return Cameras(best, camera.intrinsics)


def _median_depth(gaussians: Gaussians, camera: Cameras) -> float:
    """Median z-depth of what is in front of the camera, 1 if nothing is."""
    z = transform_points(camera.camera_from_world[0], gaussians.means)[0, :, 2]
    z = z[z > 0]
    return float(z.median()) if len(z) else 1.0
