"""`nas3r render`: videos or frames from a result."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from nas3r.bounds import MOST_PIXELS_A_SIDE, Within
from nas3r.cli.progress import ProgressBars
from nas3r.memory import require_memory

if TYPE_CHECKING:
    import numpy as np

    from nas3r.geometry import Cameras
    from nas3r.reconstruction import Scene


@dataclass
class Command:
    """Fly-through video or frames from a result of `nas3r reconstruct`."""

    result: tyro.conf.Positional[Path]
    """Result folder."""

    path: str = "views"
    """Camera path: views (through all views and back), orbit (an ellipse around the middle view), or a
    cameras.json or transforms.json whose cameras are rendered one by one."""

    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """An .mp4 file, or a folder for PNG frames; default: a video in the result folder, named as the path."""

    frames: Annotated[int, Within(2, 1_000_000)] = 72
    """Number of frames of the paths views and orbit."""

    fps: Annotated[float, Within(most=1000, above=0)] = 24
    """Frames per second of a video."""

    size: Annotated[int, Within(2, MOST_PIXELS_A_SIDE)] = 512
    """Longer side of a rendered view in pixels."""

    color_only: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave out the depth beside the colour."""

    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace an earlier video or earlier frames."""

    def run(self) -> int:
        """Runs the command."""
        from nas3r.io.video import write_video
        from nas3r.reconstruction.storage import read_scene

        result = read_scene(self.result)
        cameras, aspect = self._cameras(result)
        # At the least: colour, depth and alpha as numbers, and colour and depth as pictures.
        require_memory(30.0 * self.size**2, f"rendering at --size {self.size}", "choose a smaller one")
        out = self.out or self.result / f"{Path(self.path).stem}.mp4"
        if self.out is not None and out.exists() and not self.overwrite:
            raise FileExistsError(f"{out}: exists; name another one, or pass --overwrite")
        with ProgressBars() as bars:
            frames = self._frames(result, cameras, aspect, bars)
            if out.suffix.lower() == ".mp4":
                count = write_video(out, frames, self.fps)
            else:
                count = _write_frames(out, frames)
        print(f"{count} frames in {out}", file=sys.stderr)
        return 0

    def _cameras(self, result: "Scene") -> "tuple[Cameras, tuple[int, int]]":
        """The cameras of the path, and the (width, height) whose shape their images have."""
        from nas3r.geometry import Cameras
        from nas3r.reconstruction.trajectory import orbit, through_views

        if self.path == "views":
            way = through_views(result.cameras, max(2, self.frames // 2 + 1))
            return Cameras.cat([way, way.views(list(range(way.num_views - 2, 0, -1)))]), result.size
        if self.path == "orbit":
            known = result.depth[result.depth > 0]
            depth = known.median().item() if known.numel() else 1.0
            return orbit(result.cameras, depth, self.frames), result.size
        return _cameras_from_file(Path(self.path))

    def _frames(
        self, result: "Scene", cameras: "Cameras", aspect: tuple[int, int], bars: ProgressBars
    ) -> "Iterator[np.ndarray]":
        from nas3r.reconstruction.exports import fitted_size, rendered_frames

        width, height = fitted_size(*aspect, self.size)
        for done, frame in enumerate(rendered_frames(result, cameras, width, height), 1):
            bars("rendering", done, cameras.num_views)
            yield frame[:, :width] if self.color_only else frame


def _cameras_from_file(path: Path) -> "tuple[Cameras, tuple[int, int]]":
    """Cameras of a JSON file, intrinsics normalised to each photo, and the size of the first photo."""
    import numpy as np
    import torch

    from nas3r.geometry import Cameras
    from nas3r.io.cameras import read_cameras
    from nas3r.io.nerfstudio import read_transforms

    if path.suffix != ".json":
        raise ValueError(f"path: expected views, orbit, or a .json file of cameras, got {str(path)!r}")
    views = read_transforms(path) if path.name == "transforms.json" else read_cameras(path)
    if not views:
        raise ValueError(f"{path}: holds no cameras")
    if np.ptp([view.width / view.height for view in views]) > 0.01:
        raise ValueError(f"{path}: its cameras have images of different shapes, which cannot make one video")
    poses = np.stack([view.world_from_camera for view in views])
    sizes = np.array([[view.width, view.height, 1.0] for view in views])
    intrinsics = np.stack([view.intrinsics for view in views]) / sizes[:, :, None]
    cameras = Cameras(torch.from_numpy(poses).float()[None], torch.from_numpy(intrinsics).float()[None])
    return cameras, (views[0].width, views[0].height)


def _write_frames(folder: Path, frames: "Iterator[np.ndarray]") -> int:
    from nas3r.io.images import save_image

    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for frame in frames:
        save_image(folder / f"frame_{count:05d}.png", frame)
        count += 1
    return count
