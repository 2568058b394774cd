"""ScanNet's exported scans: `color/`, `depth/`, `pose/` and `intrinsic/`.

Format: github.com/ScanNet/ScanNet, SensReader. Poses are camera to world in metres, OpenCV axes, -inf where
tracking was lost; depth is in millimetres, 0 where unknown. Intrinsics are 4x4 matrices in pixels, used as
they stand.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nas3r.data.posed_sources.depth_image import depth_png
from nas3r.data.posed_sources.rgbd import load_matrix
from nas3r.data.posed_sources.scene import Frame, ImageScene, keep_usable, pinhole, rigid
from nas3r.io.images import image_size, natural_key

_MILLIMETRE = 1e-3
_COLOR, _DEPTH = "intrinsic_color.txt", "intrinsic_depth.txt"


def is_scannet(folder: Path) -> bool:
    """Whether the folder is an exported scan."""
    return all((folder / n).is_dir() for n in ("color", "pose")) and _intrinsics(folder, _COLOR) is not None


def read_scannet(folder: Path) -> ImageScene:
    """A scan: `color/N.jpg`, `pose/N.txt`, `depth/N.png`, `intrinsic/intrinsic_color.txt`, `..._depth.txt`.

    Where the depth camera has intrinsics of its own, depth is looked up along the rays of the colour camera;
    the two are taken to stand in one place, as the exporter leaves them. Views are counted in natural order
    of their pose files; those without a finite pose or an image are named and left out.

    Raises:
        ValueError: If no frame is usable or the intrinsics are damaged.
    """
    color_file = _intrinsics(folder, _COLOR)
    assert color_file is not None
    color = load_matrix(color_file, (4, 4))
    depth_file = _intrinsics(folder, _DEPTH)
    depth = None if depth_file is None else load_matrix(depth_file, (4, 4))
    poses = sorted((folder / "pose").glob("*.txt"), key=lambda path: natural_key(path.name))
    kept = keep_usable([partial(_frame, folder, pose, color, depth) for pose in poses], str(folder))
    return ImageScene(folder.name, kept.frames, left_out=kept.left_out)


def _intrinsics(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / "intrinsic" / name, folder / name) if p.is_file()), None)


def _frame(folder: Path, pose: Path, color: np.ndarray, depth: np.ndarray | None) -> Frame:
    candidates = [folder / "color" / f"{pose.stem}{suffix}" for suffix in (".jpg", ".png")]
    image = next((c for c in candidates if c.is_file()), candidates[0])
    size = image_size(image) if image.is_file() else (1, 1)  # a missing image is dropped later
    depth_file = folder / "depth" / f"{pose.stem}.png"
    return Frame(
        image=image,
        world_from_camera=rigid(load_matrix(pose, (4, 4)), str(pose)),
        intrinsics=_pinhole(color),
        size=size,
        depth=_depth(depth_file, color, size, depth) if depth_file.is_file() else None,
    )


def _pinhole(matrix: np.ndarray) -> torch.Tensor:
    return pinhole(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])


def _depth(
    path: Path, color: np.ndarray, color_size: tuple[int, int], depth: np.ndarray | None
) -> Callable[[], np.ndarray]:
    """Reader of a depth map, on the rays of the colour image, at the resolution of the depth map."""

    def read() -> np.ndarray:
        values = depth_png(path, _MILLIMETRE)()
        if depth is None:
            return values
        height, width = values.shape
        columns = _look_up(width, color_size[0], color[0, 0], color[0, 2], depth[0, 0], depth[0, 2])
        rows = _look_up(height, color_size[1], color[1, 1], color[1, 2], depth[1, 1], depth[1, 2])
        inside = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
        seen = values[np.ix_(rows.clip(0, height - 1), columns.clip(0, width - 1))]
        return np.where(inside[0][:, None] & inside[1], seen, 0)

    return read


def _look_up(
    count: int, color_count: int, color_focal: float, color_center: float, focal: float, center: float
) -> np.ndarray:
    """Which pixel of the depth map lies on the ray of each pixel of the colour image, along one axis.

    The colour image is taken at the resolution of the depth map.
    """
    position = (np.arange(count) + 0.5) * color_count / count
    return np.floor(focal * (position - color_center) / color_focal + center).astype(np.int64)
