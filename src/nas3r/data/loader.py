"""Batches of views for the training loop, addressable by step."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from nas3r.data.analysis import clip_travel
from nas3r.data.clips import Clip, ClipSource, ViewBatch
from nas3r.data.order import ClipOrder, SequentialOrder, ShuffledOrder
from nas3r.data.sampling import SAMPLE, ViewDropout, ViewSample, ViewSampler, random_generator
from nas3r.io.images import Resize

_ATTEMPTS = 200  # clips tried for one sample before giving up

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """The frames of one training sample.

    Attributes:
        clip: Index in the source.
        frames: Context views, then target views.
        flip: Whether the images are mirrored, all of them.
    """

    clip: int
    frames: tuple[int, ...]
    flip: bool


@runtime_checkable
class BatchSource(Protocol):
    """A clip source that makes the frames of a whole batch at once, as generated worlds do."""

    def read_batch(self, clips: Sequence[int], frames: Sequence[Sequence[int]]) -> UInt8[Tensor, "b v 3 h w"]:
        """Frames of several clips, at the size of the training images, possibly on an accelerator."""
        ...


class BatchLoader:
    """Gives the batch of any step: the same whenever it is asked for, in whichever process.

    Every sample has random numbers of its own, derived from (seed, step, place in the global batch). The
    global batch is cut into equal parts for the ranks, so two processes with half the batch see together
    exactly what one process with all of it sees. Clips that are too short for the gap of the step, or that
    cannot be read, are replaced by others and counted in `rejected`.

    Args:
        source: Clips. With a method `read_batch` (`BatchSource`) it makes whole batches and is visited from
            the first clip to the last; with `index_at` (`ClipOrder`) it brings its own order; otherwise every
            epoch is a new permutation.
        sampler: Chooses the frames.
        batch_size: Samples per step, over all ranks.
        height: Of the images in pixels; frames are scaled to cover it and cropped in the middle.
        width: Likewise.
        seed: Of everything random here.
        dropout: Varies the number of views from step to step; None keeps them all.
        flip: Mirror half of the samples, all views of a sample together.
        rank: Of this process.
        world_size: Number of processes; divides the batch.
        pin_memory: Whether batches are in pinned memory, for faster copies to a GPU.

    Raises:
        ValueError: The source is empty, or the batch cannot be split evenly.
    """

    def __init__(
        self,
        source: ClipSource,
        sampler: ViewSampler,
        *,
        batch_size: int,
        height: int,
        width: int,
        seed: int,
        dropout: ViewDropout | None = None,
        flip: bool = True,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        if len(source) == 0:
            raise ValueError("there is no clip to train on")
        if batch_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(
                f"expected a batch size that {world_size} processes can share evenly and a rank below that, "
                f"got batch size {batch_size} and rank {rank}"
            )
        self.source = source
        self.sampler = sampler
        self.rejected: Counter[str] = Counter()
        self._batch_size, self._height, self._width, self._seed = batch_size, height, width, seed
        self._dropout, self._flip = dropout, flip
        share = batch_size // world_size
        self._places = range(rank * share, (rank + 1) * share)
        self._pin_memory = pin_memory
        self._order = _order(source)
        self._travel: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def batch(self, step: int) -> ViewBatch:
        """The batch of a step: this rank's part of it.

        Raises:
            ValueError: No clip can be used at this step; the message says why.
        """
        context_kept, target_kept = self._kept(step)
        if isinstance(self.source, BatchSource):
            images = self._made(self.source, step, (*context_kept, *target_kept))
        else:
            kept = (*context_kept, *target_kept)
            samples = [self.sample(step, place, kept)[1] for place in self._places]
            images = torch.from_numpy(np.stack(samples))
        images = images.float().div_(255)
        parts = images[:, : len(context_kept)].contiguous(), images[:, len(context_kept) :].contiguous()
        if self._pin_memory and images.device.type == "cpu":
            parts = parts[0].pin_memory(), parts[1].pin_memory()
        return ViewBatch(*parts)

    def request(self, step: int, place: int) -> Request:
        """The frames of one sample of the global batch, before view dropout.

        Raises:
            ValueError: No clip can be used at this step.
        """
        return self._attempt(step, place, lambda request, clip: request)

    def sample(
        self, step: int, place: int, kept: Sequence[int] | None = None
    ) -> tuple[Request, UInt8[np.ndarray, "v 3 h w"]]:
        """The images of one sample of the global batch, and where they come from.

        Args:
            step: Training step.
            place: In the global batch.
            kept: Which of its views to read; all if None.

        Raises:
            ValueError: No clip can be used at this step.
        """

        def read(request: Request, clip: Clip) -> tuple[Request, np.ndarray]:
            frames = request.frames if kept is None else [request.frames[i] for i in kept]
            images = fit(clip.read(frames).cpu(), self._height, self._width)
            return request, images[..., ::-1] if request.flip else images

        return self._attempt(step, place, read)

    def _kept(self, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Positions of the context views and of the target views that this step uses."""
        n_context, n_target = self.sampler.context_views, self.sampler.target_views
        if self._dropout is None:
            return tuple(range(n_context)), tuple(range(n_context, n_context + n_target))
        context, target = self._dropout.kept(n_context, n_target, self._seed, step)
        return context, tuple(n_context + i for i in target)

    def _made(self, source: BatchSource, step: int, kept: tuple[int, ...]) -> UInt8[Tensor, "b v 3 h w"]:
        requests = [self.request(step, place) for place in self._places]
        frames = [[request.frames[i] for i in kept] for request in requests]
        images = source.read_batch([r.clip for r in requests], frames)
        if images.shape[-2:] != (self._height, self._width):
            raise ValueError(
                f"expected a source of {self._height} x {self._width} images, got {list(images.shape[-2:])}"
            )
        flip = torch.tensor([r.flip for r in requests], device=images.device)
        return torch.where(flip[:, None, None, None, None], images.flip(-1), images)

    def _attempt(self, step: int, place: int, use: Callable[[Request, Clip], T]) -> T:
        """Tries clips until one gives a sample that `use` can read, and returns what `use` returns."""
        rng = random_generator(SAMPLE, self._seed, step, place)
        position = step * self._batch_size + place
        reasons: Counter[str] = Counter()
        for _ in range(_ATTEMPTS):
            index = self._order.index_at(position, self._seed)
            flip = bool(rng.integers(0, 2)) and self._flip
            try:
                clip = self.source[index]
                sample = self._sample(index, clip, step, rng)
                if sample is not None:
                    return use(Request(index, (*sample.context, *sample.target), flip), clip)
                reason = "too short or too still for the gap"
            except (ValueError, OSError) as error:
                reason = " ".join(str(error).split())
            reasons[reason] += 1
            with self._lock:
                self.rejected[reason] += 1
            position += int(rng.integers(1, 9))  # near by, so that streamed corpora need no other shards
        low, high = self.sampler.schedule.bounds(step)
        most = "; ".join(f"{reason} ({count} times)" for reason, count in reasons.most_common(3))
        raise ValueError(
            f"no usable clip among {_ATTEMPTS} tried at step {step}, where the gap is {low} to {high}: {most}"
        )

    def _sample(self, index: int, clip: Clip, step: int, rng: np.random.Generator) -> ViewSample | None:
        travel = None
        if self.sampler.needs_travel:
            travel = self._travel.get(index)
            if travel is None:
                travel = self._travel[index] = clip_travel(clip)
        return self.sampler.sample(len(clip), step, rng, travel)


def _order(source: ClipSource) -> ClipOrder:
    if isinstance(source, ClipOrder):
        return source
    return SequentialOrder(len(source)) if isinstance(source, BatchSource) else ShuffledOrder(len(source))


def fit(images: UInt8[Tensor, "n 3 h w"], height: int, width: int) -> UInt8[np.ndarray, "n 3 h2 w2"]:
    """Scales images to cover a size and crops them in the middle."""
    if images.shape[-2:] == (height, width):
        return images.numpy()
    resize = Resize(images.shape[-1], images.shape[-2], width, height)
    return np.stack([resize.apply(image.permute(1, 2, 0).numpy()).transpose(2, 0, 1) for image in images])
