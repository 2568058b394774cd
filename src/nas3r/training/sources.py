"""Batches for a configuration: from synthetic worlds, from clips on disk, or from posed data."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from nas3r.data.clips import ClipSource
from nas3r.data.loader import BatchLoader
from nas3r.data.posed import PosedSource
from nas3r.data.posed_sources import open_posed
from nas3r.data.sampling import ORDER, random_generator
from nas3r.data.sources import open_source
from nas3r.data.synthetic import SyntheticClips, SyntheticConfig, Worlds
from nas3r.data.synthetic.curriculum import EasyStart
from nas3r.data.synthetic.sources import CHUNK, SyntheticClip, SyntheticScene, training_worlds
from nas3r.geometry import Cameras
from nas3r.training.config import DataConfig, TrainConfig
from nas3r.training.distributed import World
from nas3r.training.labelled import LabelledLoader
from nas3r.training.pace import Pace, paced
from nas3r.training.pool import PooledLoader
from nas3r.training.trainer import Loader

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
        start: How the collection begins, if differently.
    """

    def __init__(
        self, seed: int, config: SyntheticConfig, reuse: int, start: EasyStart | None = None
    ) -> None:
        super().__init__(reuse)
        self._seed, self._config, self._start = seed, config, start
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
        return training_worlds(self._seed, number, self._config, self._start)


def open_clips(data: DataConfig, seed: int, device: torch.device) -> ClipSource:
    """The clips that a configuration names.

    Raises:
        ValueError: If nothing usable lies at the paths.
    """
    if data.kind == "clips":
        return open_source(data.paths, cover=(data.height, data.width))
    clips = SyntheticClips(
        seed, data.synthetic, data.height, data.width, length=ENDLESS, device=device, start=data.easy_start()
    )
    return WorldStream(clips, data.reuse)


def open_labelled(data: DataConfig, seed: int) -> PosedSource:
    """The posed scenes that a configuration names.

    Raises:
        ValueError: If there is not exactly one path, or no posed data lies there.
    """
    if data.kind == "synthetic":
        return LabelledWorlds(seed, data.synthetic, data.reuse, data.easy_start())
    if len(data.paths) != 1:
        raise ValueError(f"training with labels needs one path of posed data, got {len(data.paths)}")
    return open_posed(data.paths[0])


def open_loader(config: TrainConfig, world: World, pace: Pace) -> Loader:
    """Batches for this process.

    Args:
        config: The run.
        world: Processes that share each batch.
        pace: Drives the curriculum of a run with a time budget.

    Raises:
        ValueError: If there is nothing to train on, or the batch cannot be split over the processes.
    """
    data = config.data
    if config.schedule.minutes is not None:
        data = replace(data, sampler=paced(data.sampler, pace))
    if config.objective.needs_labels(config.model):
        return LabelledLoader(open_labelled(data, config.seed), data, config.seed, world)
    if data.kind == "synthetic" and data.pool:
        return PooledLoader(data, config.seed, world)
    return BatchLoader(
        open_clips(data, config.seed, world.device),
        data.sampler,
        batch_size=data.batch_size,
        height=data.height,
        width=data.width,
        seed=config.seed,
        dropout=data.dropout,
        flip=data.flip,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
    )
