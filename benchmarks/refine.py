"""What refinement gains from a perturbed start: held-out PSNR, poses and focal length.

    python benchmarks/refine.py DATA [--scene 0 --views 10 --size 96 --steps 300 --depth constant]

The start has the true cameras with noise, and Gaussians lifted from smoothly wrong true depth or from one
constant depth per view (what is left to find is then almost everything). Every fourth view is held out: it is
in no Gaussian, and its noisy pose is all that is known of it.
"""

import json
import logging
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from nas3r.data.posed import PosedViews
from nas3r.data.posed_sources import open_posed
from nas3r.geometry import Cameras, align_cameras, relative_to_first, rotation_angle, se3_exp
from nas3r.refine import RefineSettings, lift_depth, refine


@dataclass
class Benchmark:
    """A perturbed start, refined."""

    data: tyro.conf.Positional[str]
    """Posed data (any format that `nas3r evaluate` reads), or "synthetic"."""
    scene: int = 0
    """Which scene of the data."""
    first: int = 0
    """First view."""
    step: int = 1
    """Every how many views one is used."""
    views: int = 10
    """Number of views, held-out ones included."""
    size: int = 96
    """Image side in pixels."""
    depth: Literal["noisy", "constant"] = "constant"
    """Start depth: the true one times smooth noise, or one value for each view."""
    depth_noise: float = 0.05
    """Standard deviation of the noise of log-depth."""
    degrees: float = 3.0
    """Rotation of each camera."""
    translation: float = 0.15
    """Shift of each camera, in shares of the largest distance between two."""
    focal: float = 0.05
    """Relative error of the focal length."""
    steps: int | None = None
    """Limit of steps."""
    seconds: float | None = None
    """Limit of time."""
    seed: int = 0
    """Of the noise."""
    out: Path | None = None
    """JSON file for the result."""
    settings: RefineSettings = field(default_factory=RefineSettings)


def scene_distance(views: PosedViews) -> float:
    """Median true depth, or the distance of the point that all optical axes pass closest."""
    if views.depth is not None and (views.depth > 0).any():
        return views.depth[views.depth > 0].median().item()
    centers, axes = views.cameras.centers[0], views.cameras.world_from_camera[0, :, :3, 2]
    across = torch.eye(3) - axes[:, :, None] * axes[:, None, :]
    target = torch.linalg.lstsq(across.sum(0), (across @ centers[..., None]).sum(0)).solution.squeeze(-1)
    return ((target - centers) * axes).sum(-1).median().item()


def perturbed_cameras(cameras: Cameras, fixed: int, b: Benchmark) -> Cameras:
    """Every camera but one turned and shifted in random directions; a wrong focal length."""
    generator = torch.Generator().manual_seed(b.seed)
    direction = F.normalize(torch.randn(cameras.num_views, 2, 3, generator=generator), dim=-1)
    shift = b.translation * torch.pdist(cameras.centers[0]).max()
    twist = torch.cat([shift * direction[:, 0], math.radians(b.degrees) * direction[:, 1]], -1)
    twist[fixed] = 0
    intrinsics = cameras.intrinsics.clone()
    intrinsics[..., :2, :2] *= 1 + b.focal
    return Cameras(cameras.world_from_camera @ se3_exp(twist), intrinsics)


def start_depth(views: PosedViews, distance: float, b: Benchmark) -> Tensor:
    """The depth that the start Gaussians are lifted from [v, h, w]."""
    v, _, h, w = views.images.shape
    if b.depth == "constant":
        return torch.full((v, h, w), distance)
    if views.depth is None:
        raise ValueError(f"{b.data}: no true depth; use --depth constant")
    noise = torch.randn(v, 1, 4, 4, generator=torch.Generator().manual_seed(b.seed + 1))
    return views.depth * (b.depth_noise * F.interpolate(noise, (h, w), mode="bicubic")[:, 0]).exp()


def camera_errors(cameras: Cameras, truth: Cameras) -> dict[str, float]:
    """Mean errors after the best similarity alignment."""
    aligned = align_cameras(cameras.world_from_camera, truth.world_from_camera).poses(
        cameras.world_from_camera
    )
    centers = (aligned[..., :3, 3] - truth.centers).norm(dim=-1).mean().item()
    return {
        "rotation_deg": rotation_angle(aligned[..., :3, :3], truth.world_from_camera[..., :3, :3])
        .mean()
        .item(),
        "translation_percent": 100 * centers / torch.pdist(truth.centers[0]).max().item(),
        "focal_percent": 100 * (cameras.intrinsics[0, 0, 0, 0] / truth.intrinsics[0, 0, 0, 0] - 1).item(),
    }


def main(b: Benchmark) -> None:
    """Perturbs, refines, reports."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("nas3r.refine").setLevel(logging.DEBUG)
    torch.manual_seed(b.seed)
    scene = open_posed(b.data)[b.scene]
    views = scene.read([b.first + i * b.step for i in range(b.views)], b.size, b.size)
    truth = Cameras(relative_to_first(views.cameras.world_from_camera), views.cameras.intrinsics)
    held_out = [i for i in range(b.views) if i % 4 == 2]
    train = [i for i in range(b.views) if i not in held_out]
    distance = scene_distance(views)
    cameras = perturbed_cameras(truth, train[0], b)
    depth = start_depth(views, distance, b)
    gaussians, index = lift_depth(views.images[train], depth[train], cameras.views(train))
    result = refine(
        gaussians,
        cameras,
        views.images,
        held_out=held_out,
        anchors=torch.tensor(train)[index],
        steps=b.steps,
        seconds=b.seconds,
        settings=b.settings,
    )
    report = {
        "scene": scene.name,
        "arguments": {k: v for k, v in asdict(b).items() if k not in ("settings", "out")},
        "start": asdict(result.start) | camera_errors(cameras, truth),
        "located": asdict(result.located),
        "best": asdict(result.best) | camera_errors(result.cameras, truth),
    }
    text = json.dumps(report, indent=2, default=str)
    if b.out is not None:
        b.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
