"""Synthetic clips pooled in memory, so that making worlds costs little beside training on them.

Whole clips lie on the training device as bytes; each batch picks frames from them, and clips are replaced
by new ones at a steady rate. What the pool holds is a function of the step, so a resumed run sees what an
uninterrupted one would. No step waits for the device.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.clips import ViewBatch
from nas3r.data.loaders.plan import BatchPlan, Request
from nas3r.data.synthetic import SyntheticClips
from nas3r.data.synthetic.sources import CHUNK

GROUP = CHUNK  # clips replaced together: as many worlds as are drawn at a time


class PooledLoader:
    """Gives the batch of any step, as planned, from a pool of synthetic clips.

    Args:
        clips: Worlds, at the size of the training images and on the training device.
        plan: Which frames of which places of the pool; all processes hold the same pool.
        pool: Number of clips in it.
        reuse: How often a clip is drawn before another takes its place.

    Raises:
        ValueError: If the pool is no multiple of a group, or the clips are too short for the gaps.
    """

    def __init__(self, clips: SyntheticClips, plan: BatchPlan, *, pool: int, reuse: int) -> None:
        if pool < GROUP or pool % GROUP:
            raise ValueError(f"pool: expected a multiple of {GROUP} clips, got {pool}")
        frames = clips.config.frames
        longest = plan.sampler.schedule.end[1]
        if longest >= frames or plan.sampler.needs_travel:
            raise ValueError(
                f"pooled clips of {frames} frames need gaps in frames below that, got up to {longest}"
            )
        self.plan, self.rejected = plan, plan.rejected
        self._clips, self._reuse, self._device = clips, reuse, clips.device
        self._frames = [list(range(frames))] * GROUP
        self._pool = torch.empty(
            pool, frames, 3, clips.height, clips.width, dtype=torch.uint8, device=clips.device
        )
        self._held = range(0, 0)  # numbers of the groups in the pool

    def groups_at(self, step: int) -> range:
        """Numbers of the groups of clips that the pool holds at a step."""
        replaced = int(step * self.plan.batch_size / (GROUP * self._reuse))
        return range(replaced, replaced + len(self._pool) // GROUP)

    def batch(self, step: int) -> ViewBatch:
        """This process's part of the batch of a step. Cheapest in order; any step is possible."""
        self._hold(self.groups_at(step))
        requests = [self._request(step, place) for place in self.plan.places]
        clips = self._to_device([request.clip for request in requests])
        frames = self._to_device([request.frames for request in requests])
        flip = self._to_device([request.flip for request in requests])
        images = self._pool[clips[:, None], frames].float() / 255
        images = torch.where(flip[:, None, None, None, None], images.flip(-1), images)
        context, target = self.plan.kept(step)
        return ViewBatch(_views(images, context), _views(images, target))

    def _request(self, step: int, place: int) -> Request:
        def anywhere(position: int, rng: np.random.Generator) -> int:
            return int(rng.integers(0, len(self._pool)))

        return self.plan.draw(
            step, place, anywhere, lambda index: self._pool[index], lambda request, clip: request
        )

    def _to_device(self, values: Sequence) -> Tensor:
        tensor = torch.tensor(values)
        if self._device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _hold(self, groups: range) -> None:
        for number in groups:
            if number not in self._held:
                first = (number * GROUP) % len(self._pool)
                indices = range(number * GROUP, (number + 1) * GROUP)
                self._pool[first : first + GROUP] = self._clips.read_batch(indices, self._frames)
        self._held = groups


def _views(images: Float[Tensor, "b v 3 h w"], index: tuple[int, ...]) -> Float[Tensor, "b n 3 h w"]:
    """Some views; a slice where possible, which copies nothing."""
    if index == tuple(range(index[0], index[0] + len(index))):
        return images[:, index[0] : index[0] + len(index)]
    return torch.stack([images[:, i] for i in index], 1)
