"""Batches for a configuration: from synthetic worlds or from clips on disk."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.clips import ClipSource
from nas3r.data.loader import BatchLoader
from nas3r.data.synthetic import SyntheticClips
from nas3r.data.synthetic.sources import SyntheticClip
from nas3r.training.config import DataConfig, TrainConfig
from nas3r.training.distributed import World
from nas3r.training.trainer import Loader


class WorldStream:
    """Synthetic clips visited one after the other, each once: the order in which drawing worlds is cheapest.

    Args:
        clips: Worlds, at the size of the training images.
    """

    def __init__(self, clips: SyntheticClips) -> None:
        self._clips = clips

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._clips)

    def __getitem__(self, index: int) -> SyntheticClip:
        """One clip."""
        return self._clips[index]

    def index_at(self, position: int, seed: int) -> int:
        """Index of the clip at a position of the order."""
        return position % len(self._clips)

    def read_batch(
        self, clips: Sequence[int], frames: Sequence[Sequence[int]], height: int, width: int
    ) -> Float[Tensor, "b v 3 h w"]:
        """Frames of several clips, in [0, 1].

        Raises:
            ValueError: If the size is not the one the clips are made at.
        """
        if (height, width) != (self._clips.height, self._clips.width):
            raise ValueError(
                f"synthetic clips are made at {self._clips.height} x {self._clips.width}, "
                f"not {height} x {width}"
            )
        return self._clips.read_batch(clips, frames).float() / 255


def open_clips(data: DataConfig, seed: int, device: torch.device) -> ClipSource:
    """The clips that a configuration names.

    Raises:
        ValueError: If nothing usable lies at the paths.
    """
    if data.kind == "synthetic":
        return WorldStream(
            SyntheticClips(seed, data.synthetic, data.height, data.width, length=2**40, device=device)
        )
    from nas3r.data.sources import open_source

    return open_source(data.paths)


def open_loader(config: TrainConfig, world: World) -> Loader:
    """Batches for this process.

    Raises:
        ValueError: If there are no clips, or the batch cannot be split over the processes.
    """
    data = config.data
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
