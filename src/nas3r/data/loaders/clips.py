"""Batches of clips without cameras: decoded from files, or made a batch at a time as generated worlds are."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from nas3r.data.analysis import clip_travel
from nas3r.data.clips import Clip, ClipSource, ViewBatch
from nas3r.data.loaders.plan import BatchPlan, Request
from nas3r.data.order import ClipOrder, SequentialOrder, ShuffledOrder
from nas3r.io.images import Resize

T = TypeVar("T")


@runtime_checkable
class BatchSource(Protocol):
    """A clip source that makes the frames of a whole batch at once, as generated worlds do."""

    def read_batch(self, clips: Sequence[int], frames: Sequence[Sequence[int]]) -> UInt8[Tensor, "b v 3 h w"]:
        """Frames of several clips, at the size of the training images, possibly on an accelerator."""
        ...


@runtime_checkable
class MixedSource(Protocol):
    """A clip source made of several data sets."""

    def origin(self, index: int) -> int:
        """Number of the data set that a clip is of."""
        ...


class ClipLoader:
    """Gives the batch of any step, as planned.

    Args:
        source: Clips. With a method `read_batch` (`BatchSource`) it makes whole batches and is visited from
            the first clip to the last; with `index_at` (`ClipOrder`) it brings its own order; otherwise every
            epoch is a new permutation.
        plan: Which frames of which clips.
        height: Of the images in pixels; frames are scaled to cover it and cropped in the middle.
        width: Likewise.
        pin_memory: Whether batches are in pinned memory, for faster copies to a GPU.

    Raises:
        ValueError: The source is empty.
    """

    def __init__(
        self, source: ClipSource, plan: BatchPlan, height: int, width: int, *, pin_memory: bool = False
    ) -> None:
        if len(source) == 0:
            raise ValueError("there is no clip to train on")
        self.source, self.plan, self.rejected = source, plan, plan.rejected
        self._height, self._width, self._pin_memory = height, width, pin_memory
        self._choose = plan.in_order(_order(source))
        self._origin = source.origin if isinstance(source, MixedSource) else None
        self._travel: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> ViewBatch:
        """The batch of a step: this rank's part of it.

        Raises:
            ValueError: No clip can be used at this step; the message says why.
        """
        context, target = self.plan.kept(step)
        origin: tuple[int, ...] = ()
        if isinstance(self.source, BatchSource):
            images = self._made(self.source, step, (*context, *target))
        else:
            kept = (*context, *target)
            samples = [self.sample(step, place, kept) for place in self.plan.places]
            images = torch.stack([image for _, image in samples])
            if self._origin is not None:
                origin = tuple(self._origin(request.clip) for request, _ in samples)
        images = images.float().div_(255)
        parts = images[:, : len(context)].contiguous(), images[:, len(context) :].contiguous()
        if self._pin_memory and images.device.type == "cpu":
            parts = parts[0].pin_memory(), parts[1].pin_memory()
        return ViewBatch(*parts, origin)

    def request(self, step: int, place: int) -> Request:
        """The frames of one sample of the global batch, before view dropout.

        Raises:
            ValueError: No clip can be used at this step.
        """
        return self._draw(step, place, lambda request, clip: request)

    def sample(
        self, step: int, place: int, kept: Sequence[int] | None = None
    ) -> tuple[Request, UInt8[Tensor, "v 3 h w"]]:
        """The images of one sample of the global batch, and where they come from.

        Args:
            step: Training step.
            place: In the global batch.
            kept: Which of its views to read; all if None.

        Raises:
            ValueError: No clip can be used at this step.
        """

        def read(request: Request, clip: Clip) -> tuple[Request, Tensor]:
            frames = request.frames if kept is None else [request.frames[i] for i in kept]
            images = fit(clip.read(frames).cpu(), self._height, self._width)
            return request, images.flip(-1) if request.flip else images

        return self._draw(step, place, read)

    def _draw(self, step: int, place: int, use: Callable[[Request, Clip], T]) -> T:
        clip_at = self.source.__getitem__
        return self.plan.draw(step, place, self._choose, clip_at, use, self._travelled, self._origin)

    def _made(self, source: BatchSource, step: int, kept: tuple[int, ...]) -> UInt8[Tensor, "b v 3 h w"]:
        requests = [self.request(step, place) for place in self.plan.places]
        frames = [[request.frames[i] for i in kept] for request in requests]
        images = source.read_batch([r.clip for r in requests], frames)
        if images.shape[-2:] != (self._height, self._width):
            raise ValueError(
                f"expected a source of {self._height} x {self._width} images, got {list(images.shape[-2:])}"
            )
        flip = torch.tensor([r.flip for r in requests], device=images.device)
        return torch.where(flip[:, None, None, None, None], images.flip(-1), images)

    def _travelled(self, index: int, clip: Clip) -> np.ndarray:
        travel = self._travel.get(index)
        if travel is None:
            travel = self._travel[index] = clip_travel(clip)
        return travel


def _order(source: ClipSource) -> ClipOrder:
    if isinstance(source, ClipOrder):
        return source
    return SequentialOrder(len(source)) if isinstance(source, BatchSource) else ShuffledOrder(len(source))


def fit(images: UInt8[Tensor, "n 3 h w"], height: int, width: int) -> UInt8[Tensor, "n 3 h2 w2"]:
    """Scales images to cover a size and crops them in the middle.

    Our own sources give images that just cover the size they were opened for, of which a view is enough.
    """
    resize = Resize(images.shape[-1], images.shape[-2], width, height)
    if resize.scaled_size == (resize.original_width, resize.original_height):
        left, top = resize.offset
        return images[..., top : top + height, left : left + width]
    pixels = images.permute(0, 2, 3, 1).numpy()
    return torch.from_numpy(np.stack([resize.apply(image) for image in pixels])).permute(0, 3, 1, 2)
