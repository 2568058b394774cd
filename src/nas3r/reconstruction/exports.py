"""The files that other tools read, written from a reconstruction."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from nas3r.geometry import Cameras, pixel_grid, unproject_depth
from nas3r.io.colmap import SparsePoints, write_colmap
from nas3r.io.depth import DepthMap, depth_step, write_depth_npz, write_depth_png
from nas3r.io.nerfstudio import write_transforms
from nas3r.io.ply import write_point_cloud
from nas3r.io.splat import write_splat
from nas3r.io.spz import write_spz
from nas3r.io.video import write_video
from nas3r.reconstruction.colormap import colorize_depth, depth_limits
from nas3r.reconstruction.photos import photo_pixels
from nas3r.reconstruction.report.page import write_report
from nas3r.reconstruction.scene import Scene
from nas3r.reconstruction.trajectory import through_views

MOST_POINTS = 200_000  # of points.ply
MOST_SPARSE_POINTS = 20_000  # of the COLMAP model, which is text

VIDEO_SIDE = 256  # pixels, at least, of the longer side of a flythrough frame
VIDEO_FPS = 24
VIDEO_FRAMES = 36  # one way; the video goes there and back
_RENDERED_AT_ONCE = 4

Frames = Iterator[UInt8[np.ndarray, "h w 3"]]


def points_of(scene: Scene, most: int) -> SparsePoints:
    """Points of the depth maps, evenly thinned out, with the photo pixels that see them.

    Args:
        scene: The scene.
        most: Upper bound on the number of points.
    """
    v, h, w = scene.depth.shape
    known = scene.depth.flatten() > 0
    stride = max(1, -(-int(known.sum()) // most))
    kept = known.nonzero()[:, 0][::stride]
    positions = unproject_depth(scene.cameras, scene.depth[None]).reshape(-1, 3)[kept]
    colors = (scene.images.permute(0, 2, 3, 1).reshape(-1, 3)[kept] * 255).round().byte()
    view = kept // (h * w)
    crop = pixel_grid(h, w, dtype=torch.float64).reshape(-1, 2)[kept % (h * w)].numpy()
    pixels = np.empty_like(crop)
    for i in range(v):
        seen = (view == i).numpy()
        pixels[seen] = photo_pixels(scene.views[i].resize, crop[seen])
    count = len(kept)
    return SparsePoints(
        positions.double().numpy(), colors.numpy(), np.zeros(count), np.arange(count), view.numpy(), pixels
    )


def fitted_size(width: int, height: int, side: int) -> tuple[int, int]:
    """A size scaled so that its longer side has so many pixels; even numbers, as videos need."""
    scale = side / max(width, height)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def rendered_frames(scene: Scene, cameras: Cameras, width: int, height: int) -> Frames:
    """Colour beside depth for every camera."""
    limits = depth_limits(scene.depth.numpy())
    for begin in range(0, cameras.num_views, _RENDERED_AT_ONCE):
        some = cameras.views(slice(begin, begin + _RENDERED_AT_ONCE))
        rendering = scene.render(some, height, width)
        colors = (rendering.color[0].clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        depth = torch.where(rendering.alpha > 0.5, rendering.depth, torch.zeros_like(rendering.depth))[
            0
        ].numpy()
        for color, shape in zip(colors, depth):
            yield np.concatenate([color, colorize_depth(shape, limits)], 1)


def write_flythrough(scene: Scene, path: Path, frames: int = VIDEO_FRAMES) -> None:
    """A video through all views and back, depth beside colour."""
    size = fitted_size(*scene.size, max(VIDEO_SIDE, *scene.size))
    forth = list(rendered_frames(scene, through_views(scene.cameras, frames), *size))
    write_video(path, forth + forth[-2:0:-1], VIDEO_FPS)


def write_depth(scene: Scene, folder: Path) -> None:
    """A 16-bit PNG and an NPZ per view; all PNGs share one step."""
    width, height = scene.size
    intrinsics = scene.cameras.pixel_intrinsics(width, height)[0].double().numpy()
    poses = scene.cameras.world_from_camera[0].double().numpy()
    step = depth_step(scene.depth.double().numpy())
    confidence = [None] * len(scene.views) if scene.confidence is None else scene.confidence.numpy()
    maps = zip(scene.depth.numpy(), confidence, strict=True)
    for view, (depth, sure), k, pose in zip(scene.views, maps, intrinsics, poses, strict=True):
        stem = folder / Path(view.name).stem
        write_depth_png(stem.with_name(stem.name + ".png"), depth, step)
        write_depth_npz(stem.with_name(stem.name + ".npz"), DepthMap(depth, k, pose, sure), step)


def _colmap(scene: Scene, folder: Path) -> None:
    points = scene.sparse or points_of(scene, MOST_SPARSE_POINTS)
    write_colmap(folder / "sparse" / "0", scene.photo_cameras, points)


def _points(scene: Scene, folder: Path) -> None:
    points = points_of(scene, MOST_POINTS)
    write_point_cloud(folder / "points.ply", points.positions, points.colors)


def _nerfstudio(scene: Scene, folder: Path) -> None:
    _points(scene, folder)
    write_transforms(folder / "transforms.json", scene.photo_cameras, point_cloud="points.ply")


EXPORTERS: dict[str, Callable[[Scene, Path], None]] = {
    "splat": lambda scene, folder: write_splat(folder / "scene.splat", scene.gaussians),
    "spz": lambda scene, folder: write_spz(folder / "scene.spz", scene.gaussians),
    "colmap": _colmap,
    "points": _points,
    "nerfstudio": _nerfstudio,
    "video": lambda scene, folder: write_flythrough(scene, folder / "flythrough.mp4"),
    "report": lambda scene, folder: write_report(scene, folder / "report.html"),
}
