"""What training sees: frames of static scenes, and nothing else.

No type in this module has a camera field, so labels cannot leak into self-supervised training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


@runtime_checkable
class Clip(Protocol):
    """Consecutive frames of one static scene, all of one size."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        """Some frames, RGB."""
        ...


@runtime_checkable
class ClipSource(Protocol):
    """An indexable collection of clips."""

    def __len__(self) -> int:
        """Number of clips."""
        ...

    def __getitem__(self, index: int) -> Clip:
        """One clip."""
        ...


@dataclass(frozen=True)
class ViewBatch:
    """One training batch: images alone, and which data set they are from.

    Attributes:
        context: Views the scene is built from [b, vc, 3, h, w], in [0, 1].
        target: Views to be predicted [b, vt, 3, h, w], in [0, 1].
        origin: Which of several data sets each sample is of, by number; empty where there is one.
    """

    context: Float[Tensor, "b vc 3 h w"]
    target: Float[Tensor, "b vt 3 h w"]
    origin: tuple[int, ...] = ()

    def to(self, device: torch.device | str) -> "ViewBatch":
        """The batch on another device."""
        return ViewBatch(
            self.context.to(device, non_blocking=True),
            self.target.to(device, non_blocking=True),
            self.origin,
        )
