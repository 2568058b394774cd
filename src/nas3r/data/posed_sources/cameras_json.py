"""`cameras.json`: poses, pinhole intrinsics and OpenCV distortion of image files beside it."""

from functools import partial
from pathlib import Path
from typing import Any

from nas3r.data.posed_sources.distortion import brown
from nas3r.data.posed_sources.scene import Frame, ImageScene, keep_usable, pinhole, rigid
from nas3r.geometry import invert_pose
from nas3r.io.json_files import read_object, reading_fields


def is_cameras_json(folder: Path) -> bool:
    """Whether the folder holds such a file."""
    path = folder / "cameras.json"
    return path.is_file() and b'"w2c"' in path.read_bytes().replace(b"\0", b"")  # also in UTF-16


def read_cameras_json(folder: Path) -> ImageScene:
    """The scene of `folder/cameras.json`.

    Its `frames` each have `file`, `size` [w, h], `K` [fx, fy, cx, cy] in pixels of that file, optional `dist`
    [k1, k2, p1, p2, ...] (OpenCV), and `w2c`, a 4x4 world-to-camera matrix with OpenCV axes. Frames are kept
    in the order of the file.

    Raises:
        ValueError: If the file is damaged or none of its images exists.
    """
    path = folder / "cameras.json"
    content = read_object(path)
    with reading_fields(str(path), "cameras.json"):
        kept = keep_usable([partial(_frame, folder, entry) for entry in content["frames"]], str(path))
    return ImageScene(folder.name, kept.frames, left_out=kept.left_out)


def _frame(folder: Path, entry: dict[str, Any]) -> Frame:
    return Frame(
        image=folder / entry["file"],
        world_from_camera=invert_pose(rigid(entry["w2c"], entry["file"])),
        intrinsics=pinhole(*entry["K"]),
        size=(int(entry["size"][0]), int(entry["size"][1])),
        distortion=brown(entry.get("dist", ())),
    )
