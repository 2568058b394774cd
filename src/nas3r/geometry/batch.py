"""Choosing views of every scene of a batch."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def select_views(x: Float[Tensor, "b v *n"], views: Int[Tensor, "b k"]) -> Float[Tensor, "b k *n"]:
    """What belongs to some of the views; which ones may differ from scene to scene.

    Args:
        x: Anything with a row for each view.
        views: Index of the views.
    """
    index = views.reshape(*views.shape, *[1] * (x.ndim - 2))
    return x.gather(1, index.expand(*views.shape, *x.shape[2:]))


def nearest_others(distances: Float[Tensor, "b v v"], most: int) -> Int[Tensor, "b v k"]:
    """For every view the other views at the smallest distances, nearest first, so many at most.

    Args:
        distances: From each view (rows) to each other, in any sense; the diagonal does not matter.
        most: Number of them, if there are so many.
    """
    return without_diagonal(distances).topk(min(most, distances.shape[-1] - 1), largest=False).indices


def without_diagonal(distances: Float[Tensor, "b v v"]) -> Float[Tensor, "b v v"]:
    """Distances with infinity from every view to itself."""
    return distances + torch.diag(distances.new_full(distances.shape[-1:], torch.inf))
