"""`cameras.json`: poses, pinhole intrinsics and OpenCV distortion of image files beside it."""

import json
from pathlib import Path

from nas3r.data.posed_sources.distortion import brown
from nas3r.data.posed_sources.scene import Frame, ImageScene, keep_existing, pinhole, rigid
from nas3r.geometry import invert_pose


def is_cameras_json(folder: Path) -> bool:
    """Whether the folder holds such a file."""
    path = folder / "cameras.json"
    return path.is_file() and '"w2c"' in path.read_text(errors="replace")


def read_cameras_json(folder: Path) -> ImageScene:
    """The scene of `folder/cameras.json`.

    Its `frames` each have `file`, `size` [w, h], `K` [fx, fy, cx, cy] in pixels of that file, optional `dist`
    [k1, k2, p1, p2, ...] (OpenCV), and `w2c`, a 4x4 world-to-camera matrix with OpenCV axes. Frames are kept
    in the order of the file.

    Raises:
        ValueError: If the file is damaged or none of its images exists.
    """
    path = folder / "cameras.json"
    try:
        entries = json.loads(path.read_text())["frames"]
        frames = [
            Frame(
                image=folder / entry["file"],
                world_from_camera=invert_pose(rigid(entry["w2c"], entry["file"])),
                intrinsics=pinhole(*entry["K"]),
                size=(int(entry["size"][0]), int(entry["size"][1])),
                distortion=brown(entry.get("dist", ())),
            )
            for entry in entries
        ]
    except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a readable cameras.json ({type(error).__name__}: {error})") from error
    return ImageScene(folder.name, keep_existing(frames, str(path)))
