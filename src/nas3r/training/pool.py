"""Synthetic clips pooled in memory, so that making worlds costs little beside training on them.

Whole clips lie on the training device as bytes; each batch picks frames from them, and clips are replaced
by new ones at a steady rate. What the pool holds is a function of the step, so a resumed run sees what an
uninterrupted one would. No step waits for the device.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.clips import ViewBatch
from nas3r.data.sampling import SAMPLE, random_generator
from nas3r.data.synthetic import SyntheticClips
from nas3r.data.synthetic.sources import CHUNK
from nas3r.training.config import DataConfig
from nas3r.training.distributed import World

GROUP = CHUNK  # clips replaced together: as many worlds as are drawn at a time


class PooledLoader:
    """Batches from a pool of synthetic clips.

    Args:
        data: Size of pool and batch, and how often a clip is used.
        seed: Of worlds and samples.
        world: Processes; all hold the same pool and take their part of each batch.

    Raises:
        ValueError: If the pool is no multiple of a group, the clips are too short for the gaps, or the batch
            cannot be shared evenly.
    """

    def __init__(self, data: DataConfig, seed: int, world: World) -> None:
        if data.pool < GROUP or data.pool % GROUP:
            raise ValueError(f"pool: expected a multiple of {GROUP} clips, got {data.pool}")
        if data.batch_size % world.size:
            raise ValueError(
                f"batch size {data.batch_size} cannot be shared by {world.size} processes evenly"
            )
        longest = data.sampler.schedule.end[1]
        if longest >= data.synthetic.frames or data.sampler.needs_travel:
            raise ValueError(
                f"pooled clips of {data.synthetic.frames} frames need gaps in frames below that, "
                f"got up to {longest}"
            )
        share = data.batch_size // world.size
        self._places = range(world.rank * share, (world.rank + 1) * share)
        self._data, self._seed, self._device = data, seed, world.device
        self._clips = SyntheticClips(
            seed,
            data.synthetic,
            data.height,
            data.width,
            length=2**40,
            device=world.device,
            start=data.easy_start(),
        )
        frames = data.synthetic.frames
        self._frames = [list(range(frames))] * GROUP
        self._pool = torch.empty(
            data.pool, frames, 3, data.height, data.width, dtype=torch.uint8, device=world.device
        )
        self._held = range(0, 0)  # numbers of the groups in the pool

    def groups_at(self, step: int) -> range:
        """Numbers of the groups of clips that the pool holds at a step."""
        replaced = int(step * self._data.batch_size / (GROUP * self._data.reuse))
        return range(replaced, replaced + self._data.pool // GROUP)

    def batch(self, step: int) -> ViewBatch:
        """This process's part of the batch of a step. Cheapest in order; any step is possible."""
        self._hold(self.groups_at(step))
        sampler, data = self._data.sampler, self._data
        drawn = [self._draw(step, place) for place in self._places]
        clips, frames, flips = (self._to_device(np.array(column)) for column in zip(*drawn))
        images = self._pool[clips[:, None], frames].float() / 255
        images = torch.where(flips[:, None, None, None, None], images.flip(-1), images)
        n = sampler.context_views
        context, target = tuple(range(n)), tuple(range(n, n + sampler.target_views))
        if data.dropout is not None:
            kept, kept_targets = data.dropout.kept(n, sampler.target_views, self._seed, step)
            context, target = kept, tuple(n + i for i in kept_targets)
        return ViewBatch(_views(images, context), _views(images, target))

    def _draw(self, step: int, place: int) -> tuple[int, tuple[int, ...], bool]:
        """Clip, frames and flip of one sample of the global batch."""
        rng = random_generator(SAMPLE, self._seed, step, place)
        flip = bool(rng.integers(0, 2)) and self._data.flip
        clip = int(rng.integers(0, self._data.pool))
        sample = self._data.sampler.sample(self._data.synthetic.frames, step, rng)
        if sample is None:
            raise ValueError(
                f"clips of {self._data.synthetic.frames} frames have no room for the views at step {step}"
            )
        return clip, (*sample.context, *sample.target), flip

    def _to_device(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        if self._device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _hold(self, groups: range) -> None:
        for number in groups:
            if number not in self._held:
                first = (number * GROUP) % self._data.pool
                indices = range(number * GROUP, (number + 1) * GROUP)
                self._pool[first : first + GROUP] = self._clips.read_batch(indices, self._frames)
        self._held = groups


def _views(images: Float[Tensor, "b v 3 h w"], index: tuple[int, ...]) -> Float[Tensor, "b n 3 h w"]:
    """Some views; a slice where possible, which copies nothing."""
    if index == tuple(range(index[0], index[0] + len(index))):
        return images[:, index[0] : index[0] + len(index)]
    return torch.stack([images[:, i] for i in index], 1)
