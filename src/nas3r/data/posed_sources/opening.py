"""Finding out what posed data lies at a path."""

import importlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas3r.data.posed import PosedScene, PosedSource
from nas3r.data.posed_sources.cameras_json import is_cameras_json, read_cameras_json
from nas3r.data.posed_sources.chunks import ChunkScenes, is_chunks
from nas3r.data.posed_sources.colmap import is_colmap, read_colmap
from nas3r.data.posed_sources.mvsnet import DtuScenes, is_dtu, is_mvsnet, read_mvsnet
from nas3r.data.posed_sources.nerfstudio import is_transforms, read_transforms
from nas3r.data.posed_sources.rgbd import is_seven_scenes, is_tum, read_seven_scenes, read_tum
from nas3r.data.posed_sources.scannet import is_scannet, read_scannet
from nas3r.data.posed_sources.stereo import is_stereo, read_stereo
from nas3r.data.synthetic import SyntheticScenes
from nas3r.io.images import natural_key

logger = logging.getLogger(__name__)

# A folder that fits several is what comes first: RGB-D recordings before cameras.json, for their depth.
_FORMATS: tuple[tuple[Callable[[Path], bool], Callable[[Path], PosedScene]], ...] = (
    (is_scannet, read_scannet),
    (is_seven_scenes, read_seven_scenes),
    (is_tum, read_tum),
    (is_mvsnet, read_mvsnet),
    (is_cameras_json, read_cameras_json),
    (is_transforms, read_transforms),
    (is_colmap, read_colmap),
    (is_stereo, read_stereo),
)


@dataclass(frozen=True)
class SceneFolders:
    """Scenes that each lie in their own folder; a `PosedSource` that reads a scene when it is asked for.

    Attributes:
        folders: Of the scenes.
        unrecognised: Names of folders beside them that are no scene.
    """

    folders: Sequence[Path]
    unrecognised: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> PosedScene:
        """One scene.

        Raises:
            ValueError: If it is damaged, naming it.
        """
        folder = self.folders[index]
        reader = _reader(folder)
        if reader is None:
            raise ValueError(f"{folder}: no posed scene")
        return reader(folder)

    def scene_name(self, index: int) -> str:
        """The name of a scene, also of one that cannot be read."""
        return self.folders[index].name


def _reader(path: Path) -> Callable[[Path], PosedScene] | None:
    return next((read for fits, read in _FORMATS if fits(path)), None)


def open_posed(path: str | Path) -> PosedSource:
    """The posed scenes at a path; what it holds is found out from its content.

    Args:
        path: A file or folder of one of the formats above, a folder of such folders, "synthetic", or
            "package.module:function" for a function without arguments that returns a `PosedSource`.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If it is none of the known formats.
    """
    if (match := re.fullmatch(r"synthetic(?::(\d+))?(?::(\d+))?", str(path))) is not None:
        return SyntheticScenes(seed=int(match[1] or 0), length=int(match[2] or 100))
    if (own := _own_source(str(path))) is not None:
        return own
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    path = path.resolve()  # "." has no name
    if is_chunks(path):
        return ChunkScenes(path)
    if is_dtu(path):
        return DtuScenes(path)
    if _reader(path) is not None:
        return SceneFolders([path])
    children = [] if path.is_file() else sorted(path.iterdir(), key=lambda p: natural_key(p.name))
    folders = [child for child in children if child.is_dir()]
    scenes = [folder for folder in folders if _reader(folder) is not None]
    if not scenes:
        raise ValueError(
            f"{path}: no posed data found (expected .torch chunks, DTU, BlendedMVS or another MVSNet "
            "layout, a ScanNet, 7-Scenes or TUM sequence, cameras.json, transforms.json, a COLMAP model, a "
            "stereo pair, or a folder of those)"
        )
    others = tuple(f.name for f in folders if f not in scenes)
    if others:
        logger.warning("%s: %d folders are no posed scene: %s", path, len(others), ", ".join(others))
    return SceneFolders(scenes, others)


def _own_source(text: str) -> PosedSource | None:
    module, colon, function = text.partition(":")
    if not colon or not function.isidentifier() or Path(text).exists():
        return None
    try:
        source = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{text}: cannot be imported ({error})") from error
    if not isinstance(source, PosedSource):
        raise ValueError(f"{text}: expected a PosedSource, got {type(source).__name__}")
    return source
