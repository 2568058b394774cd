"""RGB-D recordings: 7-Scenes and TUM folders."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nas3r.data.posed_sources.depth_image import depth_png
from nas3r.data.posed_sources.distortion import Distortion
from nas3r.data.posed_sources.scene import Frame, ImageScene, keep_usable, pinhole, rigid
from nas3r.geometry import make_pose, matrix_from_quat
from nas3r.io.images import image_size, natural_key

_MILLIMETRE = 1e-3
_TUM_DEPTH_UNIT = 1 / 5000
_TUM_MAX_TIME_DIFFERENCE = 0.02  # seconds, as in the data set's own association tool

# The 7-Scenes depth camera, the only calibration that comes with the data set; 640 x 480.
_SEVEN_SCENES_CAMERA = (585.0, 585.0, 320.0, 240.0)

# fx, fy, cx, cy and k1, k2, p1, p2, k3 of the three cameras, from the TUM RGB-D benchmark's file format page.
_TUM_CAMERAS = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), ()),
}
_TUM_DEFAULT = ((525.0, 525.0, 319.5, 239.5), ())


def is_seven_scenes(folder: Path) -> bool:
    """Whether the folder is a sequence in one of the layouts that `read_seven_scenes` describes."""
    if (folder / "pose").is_dir() and (folder / "color").is_dir():
        return True
    return any(folder.glob("frame-*.pose.txt"))


def read_seven_scenes(folder: Path) -> ImageScene:
    """A 7-Scenes sequence: `frame-N.color.png`, `.depth.png`, `.pose.txt`, or `color/`, `depth/`, `pose/`.

    Poses are camera to world in metres, OpenCV axes; depth is in millimetres with 0 and 65535 unknown. The
    intrinsics are `camera-intrinsics.txt` (a 3x3 matrix) if it is there, else those of the depth camera:
    colour and depth are not registered exactly in this data set. Frames whose pose is not finite (lost
    tracking) are counted and left out.

    Raises:
        ValueError: If no frame is usable or a file is damaged.
    """
    calibration = folder / "camera-intrinsics.txt"
    intrinsics = pinhole(*_SEVEN_SCENES_CAMERA)
    if calibration.is_file():
        matrix = load_matrix(calibration, (3, 3))
        intrinsics = pinhole(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    if (folder / "pose").is_dir():
        poses = sorted((folder / "pose").glob("*.txt"), key=lambda p: natural_key(p.name))
        stems = [(p, folder / "color" / p.stem, folder / "depth" / f"{p.stem}.png") for p in poses]
    else:
        poses = sorted(folder.glob("frame-*.pose.txt"), key=lambda p: natural_key(p.name))
        names = [p.name.removesuffix(".pose.txt") for p in poses]
        stems = [
            (p, folder / f"{n}.color", folder / f"{n}.depth.png") for p, n in zip(poses, names, strict=True)
        ]
    make = [partial(_seven_scenes_frame, *stem, intrinsics) for stem in stems]
    kept = keep_usable(make, str(folder))
    return ImageScene(folder.name, kept.frames, left_out=kept.left_out)


def _seven_scenes_frame(pose: Path, color: Path, depth: Path, intrinsics: torch.Tensor) -> Frame:
    candidates = [Path(f"{color}{suffix}") for suffix in (".png", ".jpg")]
    image = next((c for c in candidates if c.is_file()), candidates[0])
    return Frame(
        image=image,
        world_from_camera=rigid(load_matrix(pose, (4, 4)), str(pose)),
        intrinsics=intrinsics,
        size=image_size(image) if image.is_file() else (1, 1),  # a missing image is dropped later
        depth=depth_png(depth, _MILLIMETRE, invalid=65535) if depth.is_file() else None,
    )


def load_matrix(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A matrix in a text file, a row a line.

    Raises:
        ValueError: If it has another shape, or is no matrix.
    """
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: not a matrix of numbers ({error})") from error
    if matrix.shape != shape:
        raise ValueError(f"{path}: expected a {shape[0]}x{shape[1]} matrix, got {list(matrix.shape)}")
    return matrix


def is_tum(folder: Path) -> bool:
    """Whether the folder is a TUM RGB-D sequence."""
    return (folder / "rgb.txt").is_file() and (folder / "groundtruth.txt").is_file()


def read_tum(folder: Path) -> ImageScene:
    """A TUM RGB-D sequence: `rgb.txt`, `groundtruth.txt`, optional `depth.txt`.

    Each image gets the pose and the depth map nearest in time, if one lies within 0.02 s. The camera is told
    by `freiburg1`, `2` or `3` in the folder's name, else taken as the benchmark's default.

    Raises:
        ValueError: If no image has a pose or a file is damaged.
    """
    images = _read_list(folder / "rgb.txt")
    truth = _read_list(folder / "groundtruth.txt")
    depths = _read_list(folder / "depth.txt") if (folder / "depth.txt").is_file() else []
    make = []
    for time, fields in images:
        pose = _nearest(truth, time)
        if pose is not None:
            make.append(partial(_tum_frame, folder, fields[0], pose, _nearest(depths, time)))
    kept = keep_usable(make, str(folder))
    return ImageScene(folder.name, kept.frames, left_out=kept.left_out)


def _tum_frame(folder: Path, image: str, pose: list[str], depth: list[str] | None) -> Frame:
    match = re.search("freiburg[123]", folder.name)
    (fx, fy, cx, cy), lens = _TUM_CAMERAS[match.group()] if match else _TUM_DEFAULT
    path = folder / image
    return Frame(
        image=path,
        world_from_camera=rigid(_tum_pose(pose, folder), image),
        intrinsics=pinhole(fx, fy, cx + 0.5, cy + 0.5),  # calibrated with centres at whole numbers
        size=image_size(path) if path.is_file() else (1, 1),  # a missing image is dropped later
        distortion=Distortion("brown", lens) if lens else None,
        depth=depth_png(folder / depth[0], _TUM_DEPTH_UNIT) if depth else None,
    )


def _read_list(path: Path) -> list[tuple[float, list[str]]]:
    """Rows of `timestamp field...`, comments left out, in order of time."""
    rows = []
    for line in path.read_text().splitlines():
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            rows.append((float(fields[0]), fields[1:]))
        except ValueError as error:
            raise ValueError(f"{path}: expected 'timestamp ...', got {line!r}") from error
    return sorted(rows, key=lambda row: row[0])


def _nearest(rows: list[tuple[float, list[str]]], time: float) -> list[str] | None:
    if not rows:
        return None
    times = np.array([t for t, _ in rows])
    k = int(np.abs(times - time).argmin())
    return rows[k][1] if abs(times[k] - time) <= _TUM_MAX_TIME_DIFFERENCE else None


def _tum_pose(fields: list[str], folder: Path) -> torch.Tensor:
    try:
        tx, ty, tz, qx, qy, qz, qw = map(float, fields)
    except ValueError as error:
        raise ValueError(
            f"{folder / 'groundtruth.txt'}: expected 'time tx ty tz qx qy qz qw', got {fields}"
        ) from error
    quat = torch.tensor([qw, qx, qy, qz], dtype=torch.float64)
    return make_pose(matrix_from_quat(quat), torch.tensor([tx, ty, tz], dtype=torch.float64))
