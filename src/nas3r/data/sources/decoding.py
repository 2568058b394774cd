"""What all clip sources share: decode, scale once, make a tensor once, keep the last used ones in memory."""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from nas3r.io.images import Resize, resized

Cover = tuple[int, int] | None


class FrameCache:
    """The last used frames, up to a number of bytes. Safe to use from several threads.

    Args:
        capacity: In bytes.
    """

    def __init__(self, capacity: int = 1 << 30) -> None:
        self.capacity = capacity
        self._frames: OrderedDict[Any, Tensor] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Any) -> Tensor | None:
        """A frame, if it is still there."""
        with self._lock:
            frame = self._frames.get(key)
            if frame is not None:
                self._frames.move_to_end(key)
            return frame

    def put(self, key: Any, frame: Tensor) -> None:
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
    """Where decoded frames are kept, and at what size.

    Attributes:
        cover: Height and width that frames are scaled to cover; None keeps their size.
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
            frames |= {i: frame for i, frame in self._decode_tensors(missing) if i in frames}
        shapes = {frame.shape for frame in frames.values() if frame is not None}
        if len(shapes) != 1:
            sizes = " and ".join(sorted(f"{w} x {h}" for _, h, w in shapes))
            raise ValueError(f"{self.name}: frames differ in size ({sizes})")
        return torch.stack([frames[i] for i in indices])  # type: ignore[misc]

    def _decode_tensors(self, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[Tensor, "3 h w"]]]:
        for i, image in self._decode(indices):
            frame = torch.from_numpy(covering(image, self._store.cover).transpose(2, 0, 1).copy())
            self._store.cache.put((self._key, i), frame)
            yield i, frame


def covering(image: UInt8[np.ndarray, "h w 3"], cover: Cover) -> UInt8[np.ndarray, "h2 w2 3"]:
    """An image at the size at which it just covers `cover`, so that a crop is all that is left to do.

    Of a narrow strip, the middle that covers it.
    """
    if cover is None:
        return image
    resize = Resize(image.shape[1], image.shape[0], cover[1], cover[0])
    if resize.of_strip:
        return resize.apply(image)
    return image if resize.scaled_size == image.shape[1::-1] else resized(image, *resize.scaled_size)
