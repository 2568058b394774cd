"""Recovers pose and focal length of a camera from its pixels, by gradient descent through the renderer.

    python examples/recover_camera.py --output recover_camera.png

A small scene of Gaussians is seen by three cameras. One of them is moved, turned and given a wrong focal
length; then the difference between what it renders and what the true camera saw is followed downhill to all
seven numbers at once. Takes seconds on a CPU.
"""

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from nas3r.gaussians import SH_C0, Gaussians
from nas3r.geometry import Cameras, make_pose, quat_from_matrix, rotation_angle, se3_exp
from nas3r.render import render

HEIGHT, WIDTH = 144, 192
FOCAL = 1.1  # of the true cameras, in image widths
SKY = torch.tensor([0.65, 0.80, 0.95])  # the background


def surface(points: Tensor, normals: Tensor, colors: Tensor, spacing: float) -> Gaussians:
    """Flat Gaussians on a surface, lit from above.

    Args:
        points: [n, 3]; the world is y down, like the cameras.
        normals: Unit vectors [n, 3].
        colors: RGB [n, 3].
        spacing: Distance between neighbouring points.
    """
    light = torch.tensor([0.4, -0.8, -0.45])
    shade = 0.6 + 0.4 * (normals @ light).clamp_min(0)
    # Any rotation whose third axis is the normal.
    helper = torch.where(normals[:, :1].abs() < 0.9, torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]))
    tangent = normalize(torch.linalg.cross(helper, normals), dim=-1)
    rotation = torch.stack([tangent, torch.linalg.cross(normals, tangent), normals], -1)
    sh = (colors * shade[:, None] - 0.5) / SH_C0
    scales = torch.tensor([0.6 * spacing, 0.6 * spacing, 0.05 * spacing]).expand(len(points), 3)
    opacities = torch.full((len(points),), 0.95)
    quats = quat_from_matrix(rotation)
    return Gaussians(points[None], quats[None], scales[None], opacities[None], sh[None, :, None])


def make_scene(spacing: float = 0.05) -> Gaussians:
    """A floor with a striped ball, a box and a ring; a few thousand Gaussians."""
    return Gaussians.cat([_floor(spacing), _ball(spacing), _box(spacing), _ring(spacing)])


def _grid(steps_u: int, steps_v: int) -> tuple[Tensor, Tensor]:
    """Cell centres of the unit square."""
    u, v = (torch.arange(steps_u) + 0.5) / steps_u, (torch.arange(steps_v) + 0.5) / steps_v
    u, v = torch.meshgrid(u, v, indexing="ij")
    return u.flatten(), v.flatten()


def _two_colors(choose: Tensor, first: list[float], second: list[float]) -> Tensor:
    return torch.where(choose[:, None], torch.tensor(first), torch.tensor(second))


def _floor(spacing: float) -> Gaussians:
    side = 3.2
    u, v = _grid(round(side / spacing), round(side / spacing))
    x, z = (u - 0.5) * side, (v - 0.5) * side
    # Patches without a period: a pattern that repeats matches itself, shifted, and descent ends there.
    patch = (1.7 * x + 2.3 * (1.3 * z).sin()).sin() + (2.6 * z - 1.1 * x + 1).sin() > 0
    colors = _two_colors(patch, [0.92, 0.90, 0.85], [0.50, 0.54, 0.62])
    points = torch.stack([x, torch.full_like(x, 0.5), z], -1)
    return surface(points, torch.tensor([0.0, -1.0, 0.0]).expand_as(points), colors, spacing)


def _ball(spacing: float) -> Gaussians:
    radius, center = 0.45, torch.tensor([-0.75, 0.05, 0.1])
    count = round(4 * math.pi * radius**2 / spacing**2)
    height = 1 - 2 * (torch.arange(count) + 0.5) / count
    angle = torch.arange(count) * math.pi * (3 - math.sqrt(5))  # the golden angle: even on the sphere
    ring = (1 - height**2).sqrt()
    normals = torch.stack([ring * angle.cos(), height, ring * angle.sin()], -1)
    stripe = (height * 3).floor() % 2 == 0
    colors = _two_colors(stripe, [0.90, 0.25, 0.20], [0.98, 0.85, 0.30])
    return surface(center + radius * normals, normals, colors, spacing)


def _box(spacing: float) -> Gaussians:
    side, center = 0.7, torch.tensor([0.75, 0.15, 0.35])
    u, v = _grid(round(side / spacing), round(side / spacing))
    faces = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = torch.zeros(3)
            normal[axis] = sign
            points = torch.stack([u - 0.5, v - 0.5, torch.full_like(u, 0.5 * sign)], -1)
            points = center + side * points.roll(axis - 2, -1)
            frame = ((u - 0.5).abs() > 0.36) | ((v - 0.5).abs() > 0.36)
            colors = _two_colors(frame, [0.10, 0.35, 0.65], [0.25, 0.65, 0.85])
            faces.append(surface(points, normal.expand_as(points), colors, spacing))
    return Gaussians.cat(faces)


def _ring(spacing: float) -> Gaussians:
    major, minor, center = 0.34, 0.11, torch.tensor([0.05, 0.39, -0.75])
    u, v = _grid(round(2 * math.pi * major / spacing), round(2 * math.pi * minor / spacing) + 1)
    u, v = 2 * math.pi * u, 2 * math.pi * v
    normals = torch.stack([v.cos() * u.cos(), v.sin(), v.cos() * u.sin()], -1)
    circle = torch.stack([u.cos(), torch.zeros_like(u), u.sin()], -1)
    quarter = (u / (math.pi / 4)).floor() % 2 == 0
    colors = _two_colors(quarter, [0.20, 0.65, 0.35], [0.95, 0.95, 0.95])
    return surface(center + major * circle + minor * normals, normals, colors, spacing)


def look_at(centers: Tensor, target: Tensor) -> Tensor:
    """Camera-to-world poses [n, 4, 4] at `centers` [n, 3] that look at a point, upright."""
    forward = normalize(target - centers, dim=-1)
    down = torch.tensor([0.0, 1.0, 0.0]).expand_as(forward)
    right = normalize(torch.linalg.cross(down, forward), dim=-1)
    return make_pose(torch.stack([right, torch.linalg.cross(forward, right), forward], -1), centers)


def with_focal(world_from_camera: Tensor, focal: Tensor, aspect: float) -> Cameras:
    """Cameras as the views of one batch element.

    Args:
        world_from_camera: [v, 4, 4].
        focal: In image widths [v].
        aspect: Image height over width; pixels are square.
    """
    zero, one = torch.zeros_like(focal), torch.ones_like(focal)
    rows = [focal, zero, one / 2, zero, focal / aspect, one / 2, zero, zero, one]
    return Cameras(world_from_camera[None], torch.stack(rows, -1).unflatten(-1, (3, 3))[None])


def make_cameras() -> Cameras:
    """Three cameras on an arc around the scene."""
    centers = torch.tensor([[-2.2, -1.1, -2.4], [0.2, -1.5, -3.1], [2.4, -0.9, -2.1]])
    return with_focal(
        look_at(centers, torch.tensor([0.0, 0.2, 0.0])), torch.full((3,), FOCAL), HEIGHT / WIDTH
    )


@dataclass(frozen=True)
class Recovery:
    """The camera at the start and after every step, as the views of one batch element."""

    cameras: Cameras

    def camera(self, step: int) -> Cameras:
        """The camera after a step."""
        return self.cameras.views([step])

    def errors(self, truth: Cameras) -> tuple[Tensor, Tensor, Tensor]:
        """Of every step: rotation in degrees, distance in world units, focal length in percent."""
        poses, true_pose = self.cameras.world_from_camera[0], truth.world_from_camera[0]
        turned = rotation_angle(poses[:, :3, :3], true_pose[:, :3, :3].expand(len(poses), 3, 3))
        moved = (poses[:, :3, 3] - true_pose[:, :3, 3]).norm(dim=-1)
        focal, true_focal = (x.intrinsics[0, :, 0, 0] for x in (self.cameras, truth))
        return turned, moved, 100 * (focal / true_focal - 1).abs()


def recover(
    gaussians: Gaussians,
    image: Tensor,
    start_pose: Tensor,
    start_focal: float,
    *,
    steps: int = 200,
    learning_rate: float = 0.02,
    blurs: tuple[int, ...] = (1, 4, 16),
) -> Recovery:
    """Follows the photometric error downhill to the camera that took an image.

    Args:
        gaussians: The scene, known.
        image: What the camera saw [3, h, w].
        start_pose: Where the search starts [4, 4].
        start_focal: Likewise, in image widths.
        steps: Of Adam.
        learning_rate: Of Adam; falls to a fiftieth of it.
        blurs: The images are compared at these sizes of box, in pixels: the widest leads when everything is
            far off, the narrowest gives the last digits.
    """
    height, width = image.shape[1:]
    distance = _middle_depth(gaussians, start_pose, start_focal, height, width)
    unit = torch.stack([distance, distance, distance, *torch.ones(3)])  # one step moves as far as it turns
    unknowns = torch.zeros(7, requires_grad=True)  # moved, turned, logarithm of the focal length

    def camera() -> Cameras:
        zoom = unknowns[6].exp()
        # A longer focal length takes the camera back, so that things keep their size and only the
        # perspective changes: otherwise the two would do nearly the same to the image.
        back = torch.stack([0 * zoom, 0 * zoom, (1 - zoom) * distance])
        pose = start_pose @ make_pose(torch.eye(3), back) @ se3_exp(unknowns[:6] * unit)
        return with_focal(pose[None], start_focal * zoom[None], height / width)

    optimizer = torch.optim.Adam([unknowns], lr=learning_rate)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.02 ** (1 / steps))
    path = [camera().detach()]
    for _ in range(steps):
        error = render(gaussians, camera(), height, width, background=SKY).color[0, 0] - image
        loss = torch.stack([avg_pool2d(error, size).abs().mean() for size in blurs]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        path.append(camera().detach())
    return Recovery(Cameras.cat(path))


def _middle_depth(gaussians: Gaussians, pose: Tensor, focal: float, height: int, width: int) -> Tensor:
    """Median over the pixels that see something."""
    camera = with_focal(pose[None], torch.tensor([focal]), height / width)
    depth = render(gaussians, camera, height, width).depth
    return depth[depth > 0].median()


def draw(path: Path, gaussians: Gaussians, cameras: Cameras, found: Recovery, truth: Cameras) -> None:
    """The three views; start, recovered and true view; the errors over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [*(cameras.views([i]) for i in range(3)), found.camera(0), found.camera(-1), truth]
    titles = ["scene, camera 1", "camera 2", "camera 3", "start", "recovered", "target"]
    figure, axes = pyplot.subplots(3, 3, figsize=(10, 8.4), constrained_layout=True)
    for axis, camera, title in zip(axes.flat, shown, titles, strict=False):
        axis.imshow(_photo(gaussians, camera).permute(1, 2, 0).clamp(0, 1))
        axis.set_title(title)
        axis.axis("off")
    labels = ["rotation error, degrees", "distance error, world units", "focal length error, %"]
    for axis, values, label in zip(axes[2], found.errors(truth), labels, strict=True):
        axis.semilogy(values.clamp_min(1e-4))
        axis.set(xlabel="step", title=label)
        axis.grid(alpha=0.3)
    temporary = path.with_name(f".{path.name}.tmp.png")
    figure.savefig(temporary, dpi=80)
    temporary.replace(path)


def _photo(gaussians: Gaussians, camera: Cameras) -> Tensor:
    """What one camera sees [3, HEIGHT, WIDTH]."""
    with torch.no_grad():
        return render(gaussians, camera, HEIGHT, WIDTH, background=SKY).color[0, 0]


def disturbed(pose: Tensor, *, degrees: float, distance: float) -> Tensor:
    """The pose, turned about an oblique axis and moved in an oblique direction."""
    axis, direction = torch.tensor([0.5, -0.7, 0.5]), torch.tensor([-0.6, 0.5, 0.6])
    turn = axis / axis.norm() * math.radians(degrees)
    return pose @ se3_exp(torch.cat([direction / direction.norm() * distance, turn]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Recovers a camera's pose and focal length from its pixels.")
    parser.add_argument("--output", type=Path, default=Path("recover_camera.png"), help="the picture")
    output = parser.parse_args().output

    gaussians, cameras = make_scene(), make_cameras()
    truth = cameras.views([1])
    start = disturbed(truth.world_from_camera[0, 0], degrees=8, distance=0.4)
    began = time.perf_counter()
    found = recover(gaussians, _photo(gaussians, truth), start, 1.3 * FOCAL)
    print(f"{gaussians.num_gaussians} Gaussians, {time.perf_counter() - began:.0f} s")
    turned, moved, zoomed = found.errors(truth)
    for name, step in (("start", 0), ("recovered", -1)):
        print(f"{name:>10}: {turned[step]:.3f} degrees, {moved[step]:.4f} units, {zoomed[step]:.3f} % focal")
    draw(output, gaussians, cameras, found, truth)
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
