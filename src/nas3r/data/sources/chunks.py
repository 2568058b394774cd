"""RE10K, ACID and DL3DV in the `.torch` chunks of the novel-view-synthesis literature.

A chunk is a list of scenes; a scene has a `key`, `images` (each the bytes of a JPEG file as a uint8 tensor)
and `cameras` (a row per image: fx, fy, cx, cy, two unused numbers, 3x4 world-to-camera). Clips made here
leave the cameras out.
"""

import logging
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nas3r.data.order import WindowedOrder
from nas3r.data.parts import Part
from nas3r.data.sources.decoding import DecodedClip, FrameStore
from nas3r.data.sources.rejection import Rejection
from nas3r.io.images import decode_image
from nas3r.io.json_files import read_object

logger = logging.getLogger(__name__)

_OPEN_CHUNKS = 8
_WINDOW = 4  # chunks whose scenes are shuffled together


@dataclass(frozen=True)
class ChunkScene:
    """One scene of a chunk, as stored.

    Attributes:
        key: Its name.
        images: Bytes of the image files, one uint8 tensor each.
        cameras: Raw rows [n, 18], or None if the chunk has none. Clips ignore them.
    """

    key: str
    images: list[UInt8[Tensor, "_"]]
    cameras: Float[Tensor, "n 18"] | None


def load_chunk(path: Path) -> list[ChunkScene]:
    """Reads a chunk without running any code in it; images stay encoded and, where possible, on the disk.

    Raises:
        ValueError: The file is no chunk.
        OSError: The file is missing or may not be read.
    """
    with path.open("rb") as file:  # says plainly when the file is missing or may not be read
        size = os.fstat(file.fileno()).st_size
    try:
        content = _load(path)
    except MemoryError:
        raise
    except Exception as error:  # torch raises many types for damaged or unsafe files
        raise ValueError(f"{path}: not a readable chunk ({type(error).__name__})") from error
    if not isinstance(content, list):
        raise ValueError(f"{path}: expected a list of scenes, got {type(content).__name__}")
    return [_scene(entry, f"{path}, scene {number}", size) for number, entry in enumerate(content)]


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # the oldest files are no zip archives and cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)


def _scene(entry: Any, name: str, file_size: int) -> ChunkScene:
    if not isinstance(entry, dict) or not {"key", "images"} <= entry.keys():
        raise ValueError(f"{name}: expected a dictionary with key and images")
    images, cameras = entry["images"], entry.get("cameras")
    if not isinstance(images, list) or not all(
        isinstance(image, Tensor) and image.dtype == torch.uint8 and image.ndim == 1 for image in images
    ):
        raise ValueError(f"{name}: expected images as a list of uint8 vectors")
    if cameras is not None and not (isinstance(cameras, Tensor) and cameras.is_floating_point()):
        raise ValueError(f"{name}: expected cameras as a tensor of numbers, got {type(cameras).__name__}")
    for tensor in images if cameras is None else [*images, cameras]:
        _check_stored(tensor, name, file_size)
    return ChunkScene(str(entry["key"]), images, cameras)


def _check_stored(tensor: Tensor, name: str, file_size: int) -> None:
    """Raises ValueError for a tensor that is not in the file as it is: a few bytes can claim gigabytes."""
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        raise ValueError(f"{name}: expected plain tensors, got one that holds no values of its own")
    claimed = tensor.numel() * tensor.element_size()
    if not tensor.is_contiguous() or claimed > min(tensor.untyped_storage().nbytes(), file_size):
        raise ValueError(f"{name}: a tensor claims {claimed} bytes, more than are stored for it")


class ChunkClip(DecodedClip):
    """The images of one scene.

    Args:
        scene: Entry of a chunk.
        store: Where decoded frames are kept, and how small.
        key: What tells it from all other clips of the store.
    """

    def __init__(self, scene: ChunkScene, store: FrameStore, key: Hashable) -> None:
        super().__init__(scene.key, len(scene.images), store, key)
        self._images = scene.images

    def _decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for i in indices:
            yield i, decode_image(self._images[i].numpy().tobytes(), f"{self.name}, view {i}")


class ChunkSource:
    """The scenes of a folder of chunks (or of one); a `ClipSource` that is visited a few chunks at a time.

    Args:
        path: A `.torch` file or a folder of them.
        store: Where decoded frames are kept, and how small.
        part: Only this part of the chunks; all if None.

    Raises:
        ValueError: A file is no chunk, or the part has none.
        OSError: A file is missing or may not be read.
    """

    def __init__(self, path: Path, store: FrameStore | None = None, part: Part | None = None) -> None:
        self._store = store or FrameStore()
        self._lock = threading.Lock()
        self._open: OrderedDict[int, list[ChunkScene]] = OrderedDict()
        part = part or Part()
        files = [path] if path.is_file() else sorted(path.glob("*.torch"))
        self._files = [file for number, file in enumerate(files) if part.holds(number)]
        if not self._files:
            raise ValueError(f"{path}: {len(files)} chunks leave none for part {part}")
        self.rejected: list[Rejection] = []
        self._order = WindowedOrder(self._sizes(path), _WINDOW)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> ChunkClip:
        """One scene."""
        group = self._order.group_of(index)
        scenes, place = self._chunk(group), self._order.place_in_group(index)
        if place >= len(scenes):
            raise ValueError(f"{self._files[group]}: has fewer scenes than the index says")
        return ChunkClip(scenes[place], self._store, (self._files[group], place))

    def index_at(self, position: int, seed: int) -> int:
        """Index of the scene that is visited at a position; see `WindowedOrder`."""
        return self._order.index_at(position, seed)

    def _sizes(self, path: Path) -> list[int]:
        """Number of scenes of each chunk: from `index.json` where there is one, else by opening them all."""
        index = path / "index.json"
        if not index.is_file():
            return self._counted()
        counts = Counter(str(name) for name in read_object(index).values())
        return [counts[file.name] for file in self._files]

    def _counted(self) -> list[int]:
        """Number of scenes of each chunk; 0 for one that cannot be read."""
        sizes = []
        for file in self._files:
            try:
                sizes.append(len(load_chunk(file)))
            except (ValueError, OSError) as error:
                if len(self._files) == 1:
                    raise
                sizes.append(0)
                self.rejected.append(Rejection(file.name, str(error)))
                logger.warning("%s is left out: %s", file.name, error)
        if self.rejected and not sum(sizes):
            raise ValueError(f"no chunk can be read: {self.rejected[0].reason}")
        return sizes

    def _chunk(self, number: int) -> list[ChunkScene]:
        with self._lock:
            if number not in self._open:
                self._open[number] = load_chunk(self._files[number])
                while len(self._open) > _OPEN_CHUNKS:
                    self._open.popitem(last=False)
            self._open.move_to_end(number)
            return self._open[number]
