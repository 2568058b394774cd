"""What all clip sources share: decode, scale down once, keep the last used frames in memory."""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from nas3r.io.images import Resize

Cover = tuple[int, int] | None


class FrameCache:
    """The last used frames, up to a number of bytes. Safe to use from several threads.

    Args:
        capacity: In bytes.
    """

    def __init__(self, capacity: int = 1 << 30) -> None:
        self.capacity = capacity
        self._frames: OrderedDict[Any, np.ndarray] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Any) -> np.ndarray | None:
        """A frame, if it is still there."""
        with self._lock:
            frame = self._frames.get(key)
            if frame is not None:
                self._frames.move_to_end(key)
            return frame

    def put(self, key: Any, frame: np.ndarray) -> None:
        """Keeps a frame, and drops the ones that were not used for longest."""
        with self._lock:
            old = self._frames.pop(key, None)
            self._size += frame.nbytes - (old.nbytes if old is not None else 0)
            self._frames[key] = frame
            while self._size > self.capacity:
                _, dropped = self._frames.popitem(last=False)
                self._size -= dropped.nbytes


@dataclass(frozen=True)
class FrameStore:
    """Where decoded frames are kept, and how small.

    Attributes:
        cover: Height and width that frames must still cover after they are scaled down; None keeps their
            size.
        cache: May be shared by several sources.
    """

    cover: Cover = None
    cache: FrameCache = field(default_factory=FrameCache)


class DecodedClip(ABC):
    """A clip whose frames are decoded on demand; a `Clip`.

    Args:
        name: For messages and reports.
        count: Number of frames.
        store: Where decoded frames are kept, and how small.
        key: What tells this clip's frames from those of all other clips in the store.
    """

    def __init__(self, name: str, count: int, store: FrameStore, key: Hashable) -> None:
        self.name = name
        self._count = count
        self._store = store
        self._key = key

    def __len__(self) -> int:
        return self._count

    @abstractmethod
    def _decode(self, indices: Sequence[int]) -> Iterable[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Frames at ascending, distinct indices; may give others too, which are kept for later."""

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        """Some frames, RGB.

        Raises:
            ValueError: An index is out of range, a frame is damaged, or the frames differ in size.
            OSError: A file cannot be read.
        """
        if any(not 0 <= i < len(self) for i in indices):
            raise ValueError(f"{self.name}: expected frames from 0 to {len(self) - 1}, got {list(indices)}")
        frames = {i: self._store.cache.get((self._key, i)) for i in indices}
        missing = sorted(i for i, frame in frames.items() if frame is None)
        if missing:
            frames |= {i: frame for i, frame in self._decode_small(missing) if i in frames}
        shapes = {frame.shape for frame in frames.values() if frame is not None}
        if len(shapes) != 1:
            sizes = " and ".join(sorted(f"{w} x {h}" for h, w, _ in shapes))
            raise ValueError(f"{self.name}: frames differ in size ({sizes})")
        stacked = np.stack([frames[i] for i in indices])  # type: ignore[misc]
        return torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)))

    def _decode_small(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for i, image in self._decode(indices):
            frame = shrink(image, self._store.cover)
            self._store.cache.put((self._key, i), frame)
            yield i, frame


def small_size(height: int, width: int, cover: Cover) -> tuple[int, int]:
    """Height and width after scaling down, never up, as far as `cover` is still covered."""
    if cover is None or height <= cover[0] or width <= cover[1]:
        return height, width
    small_width, small_height = Resize(width, height, cover[1], cover[0]).scaled_size
    return small_height, small_width


def shrink(image: UInt8[np.ndarray, "h w 3"], cover: Cover) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Scales an image to `small_size` (Lanczos), so that a later crop to `cover` needs no second scaling."""
    height, width = small_size(image.shape[0], image.shape[1], cover)
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
