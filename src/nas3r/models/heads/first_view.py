"""Heads that differ between the first view and all others."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class FirstAndOthers(nn.Module):
    """One head for the first view, another for every other view.

    Args:
        make: Builds a head; its inputs and output are [b, v, ...], or lists of such.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first = make()
        self.others = make()

    def forward(self, *inputs: Any, has_first: bool = True) -> Tensor:
        """Applies the heads to views of which the first is the scene's first, or (targets) none is."""
        if not has_first:
            return self.others(*inputs)
        parts = [self.first(*(_views(x, slice(1)) for x in inputs))]
        if inputs[-1].shape[1] > 1:
            parts.append(self.others(*(_views(x, slice(1, None)) for x in inputs)))
        return torch.cat(parts, 1)


def _views(x: Any, index: slice) -> Any:
    return [y[:, index] for y in x] if isinstance(x, list) else x[:, index]
