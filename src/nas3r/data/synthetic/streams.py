"""Synthetic worlds without end, in the order that training visits them: as clips, or with labels."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from nas3r.data.sampling import ORDER, random_generator
from nas3r.data.synthetic.config import SyntheticConfig
from nas3r.data.synthetic.sources import (
    CHUNK,
    SyntheticClip,
    SyntheticClips,
    SyntheticScene,
    training_worlds,
)
from nas3r.data.synthetic.worlds import Worlds
from nas3r.geometry import Cameras

WINDOW = 256  # synthetic clips in use at a time
ENDLESS = 2**40  # number of synthetic clips


class ReusedWindows:
    """An order that makes drawing worlds cheap.

    Drawing a world costs about as much as rendering a sample's frames, so a window of clips is visited
    several times, each time in another order and (by the sampler) with other frames, before the next one.

    Args:
        reuse: Number of visits.
    """

    def __init__(self, reuse: int) -> None:
        self._reuse = reuse
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def index_at(self, position: int, seed: int) -> int:
        """Index of the clip at a position of the order."""
        visit, place = divmod(position, WINDOW)
        return visit // self._reuse * WINDOW + int(self._permutation(visit, seed)[place])

    def _permute(self, visit: int, seed: int) -> np.ndarray:
        return random_generator(ORDER, seed, visit).permutation(WINDOW)


class WorldStream(ReusedWindows):
    """Synthetic clips, images alone.

    Args:
        clips: Worlds, at the size of the training images.
        reuse: How often each is visited.
    """

    def __init__(self, clips: SyntheticClips, reuse: int) -> None:
        super().__init__(reuse)
        self._clips = clips

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._clips)

    def __getitem__(self, index: int) -> SyntheticClip:
        """One clip."""
        return self._clips[index]

    def read_batch(self, clips: Sequence[int], frames: Sequence[Sequence[int]]) -> UInt8[Tensor, "b v 3 h w"]:
        """Frames of several clips."""
        return self._clips.read_batch(clips, frames)


class LabelledWorlds(ReusedWindows):
    """The worlds of a `WorldStream` of the same seed, with their cameras and depth: a `PosedSource`.

    Args:
        seed: Of the collection.
        config: What the worlds are made of.
        reuse: How often each is visited.
    """

    def __init__(self, seed: int, config: SyntheticConfig, reuse: int) -> None:
        super().__init__(reuse)
        self._seed, self._config = seed, config
        self._drawn = lru_cache(maxsize=2 * WINDOW // CHUNK)(self._draw)

    def __len__(self) -> int:
        """Number of scenes."""
        return ENDLESS

    def __getitem__(self, index: int) -> SyntheticScene:
        """One scene."""
        worlds, paths = self._drawn(index // CHUNK)
        row = [index % CHUNK]
        path = Cameras(paths.world_from_camera[row], paths.intrinsics[row])
        return SyntheticScene(f"synthetic-{self._seed}-{index:08d}", worlds[row], path, self._config)

    def _draw(self, number: int) -> tuple[Worlds, Cameras]:
        return training_worlds(self._seed, number, self._config)
