"""RE10K-style `.torch` chunks (also ACID and DL3DV): many scenes in one file, with cameras."""

import io
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nas3r.data.posed_sources.scene import Frame, ImageScene, keep_usable, pinhole, rigid
from nas3r.data.sources.chunks import ChunkScene, load_chunk
from nas3r.geometry import invert_pose
from nas3r.io.images import decode_image
from nas3r.io.json_files import read_object, reading_fields


def is_chunks(path: Path) -> bool:
    """Whether the path is a chunk or a folder of chunks."""
    return path.suffix == ".torch" if path.is_file() else any(path.glob("*.torch"))


class ChunkScenes:
    """The scenes of a chunk or a folder of chunks; a `PosedSource`.

    With an `index.json` (scene key to chunk file) in the folder, scenes are listed without opening chunks.
    One chunk is kept in memory at a time.

    Args:
        path: A `.torch` file or a folder of them.
    """

    def __init__(self, path: Path) -> None:
        self._entries = _from_index(path) or _from_chunks(path)
        self._loaded: tuple[Path, dict[str, ChunkScene]] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def scene_name(self, index: int) -> str:
        """The key of a scene, also of one that cannot be read."""
        return self._entries[index][0]

    def __getitem__(self, index: int) -> ImageScene:
        """One scene.

        Raises:
            ValueError: If its chunk or its entry in it is damaged.
        """
        key, path = self._entries[index]
        if self._loaded is None or self._loaded[0] != path:
            self._loaded = path, {scene.key: scene for scene in load_chunk(path)}
        if key not in self._loaded[1]:
            raise ValueError(f"{path}: has no scene {key}")
        return posed_scene(self._loaded[1][key])


def _from_index(path: Path) -> list[tuple[str, Path]]:
    index = path / "index.json"
    if not path.is_dir() or not index.is_file():
        return []
    content = read_object(index)
    with reading_fields(str(index), "index of chunks (scene keys with their chunk files)"):
        return [(str(key), path / Path(file).name) for key, file in content.items()]


def _from_chunks(path: Path) -> list[tuple[str, Path]]:
    entries: list[tuple[str, Path]] = []
    for file in [path] if path.is_file() else sorted(path.glob("*.torch")):
        try:
            entries += [(scene.key, file) for scene in load_chunk(file)]
        except ValueError:
            entries.append((file.name, file))  # reading it will fail and name it
    return entries


def posed_scene(entry: ChunkScene) -> ImageScene:
    """The posed scene of one entry of a chunk.

    A row of `cameras` is fx, fy, cx, cy (normalised), two unused numbers and the 3x4 world-to-camera matrix.
    Views whose image or camera is none are counted and left out; the others keep their number.

    Raises:
        ValueError: If the entry is damaged, or none of its views can be used.
    """
    key, cameras, images = entry.key, entry.cameras, entry.images
    if cameras is None or cameras.shape != (len(images), 18) or not images:
        shape = "none" if cameras is None else list(cameras.shape)
        raise ValueError(f"{key}: expected cameras [{len(images)}, 18] for its images, got {shape}")
    make = [
        partial(_frame, row, data, f"{key}, view {i}") for i, (row, data) in enumerate(zip(cameras, images))
    ]
    kept = keep_usable(make, key)
    return ImageScene(key, kept.frames, left_out=kept.left_out)


def _frame(row: torch.Tensor, data: torch.Tensor, name: str) -> Frame:
    width, height = _size(data, name)
    fx, fy, cx, cy, _, _, *pose = row.double().tolist()
    return Frame(
        image=_Encoded(data, name),
        world_from_camera=invert_pose(rigid(np.reshape(pose, (3, 4)), name)),
        intrinsics=pinhole(fx * width, fy * height, cx * width, cy * height),
        size=(width, height),
    )


class _Encoded:
    """An image file in memory."""

    def __init__(self, data: torch.Tensor, name: str) -> None:
        self._data, self._name = data, name

    def __call__(self) -> np.ndarray:
        return decode_image(self._data.numpy().tobytes(), self._name)


def _size(data: torch.Tensor, name: str) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data.numpy().tobytes())) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, AttributeError) as error:
        raise ValueError(f"{name}: its image is damaged ({error})") from error
