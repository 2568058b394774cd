"""The photos of a refinement, at several scales, split into training and held-out views."""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SMALLEST_SIDE = 24  # pixels; below, an image says little about pose


@dataclass(frozen=True)
class FittedViews:
    """Photos of one scene.

    Attributes:
        images: [v, 3, h, w] in [0, 1].
        held_out: Views that measure and never teach.
    """

    images: Float[Tensor, "v 3 h w"]
    held_out: list[int]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] != 3:
            raise ValueError(f"images: expected shape [v, 3, h, w], got {list(self.images.shape)}")
        if len(set(self.held_out)) != len(self.held_out) or any(
            not 0 <= view < len(self.images) for view in self.held_out
        ):
            raise ValueError(
                f"held_out: expected distinct views in 0..{len(self.images) - 1}, got {self.held_out}"
            )
        if not self.train:
            raise ValueError(f"held_out: expected some of {len(self.images)} views to be left to learn from")

    @cached_property
    def train(self) -> list[int]:
        """Views that teach."""
        return [view for view in range(len(self.images)) if view not in self.held_out]

    @cached_property
    def _pyramid(self) -> dict[float, Tensor]:
        return {1.0: self.images}

    def at(self, level: float) -> Float[Tensor, "v 3 h2 w2"]:
        """The images at a scale in (0, 1], but never smaller than is useful; averaged over pixel areas."""
        h, w = self.images.shape[-2:]
        level = min(max(level, SMALLEST_SIDE / min(h, w)), 1.0)
        if level not in self._pyramid:
            size = (round(h * level), round(w * level))
            self._pyramid[level] = F.interpolate(self.images, size=size, mode="area")
        return self._pyramid[level]


class ViewOrder:
    """Views in random order, each once before any twice."""

    def __init__(self, views: list[int], seed: int) -> None:
        self._views = views
        self._generator = torch.Generator().manual_seed(seed)
        self._queue: list[int] = []

    def next(self, count: int) -> list[int]:
        """The next views, `count` or all if there are fewer."""
        count = min(count, len(self._views))
        if len(self._queue) < count:
            order = torch.randperm(len(self._views), generator=self._generator).tolist()
            self._queue = [self._views[i] for i in order]
        chosen, self._queue = self._queue[:count], self._queue[count:]
        return chosen
