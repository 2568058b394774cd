"""Which view each view is matched with: short ways to the first one, over pairs that match well."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_LEAST_AGREEMENT = 1e-3
_PENALTY = 8  # power: how many good steps are better than one worse step


def link_costs(agreement: Float[Tensor, "b v r"]) -> Float[Tensor, "b v r"]:
    """What a step from a view to another adds to its way: several good steps are better than a worse one.

    Args:
        agreement: Mean mutual agreement of their matches, 0 to 1.
    """
    return agreement.clamp_min(_LEAST_AGREEMENT).pow(-_PENALTY)


def cheapest(costs: Float[Tensor, "b v v"], most: int) -> Int[Tensor, "b v k"]:
    """For every view the other views to which steps cost least, best first, so many at most.

    Args:
        costs: Of the step from each view (rows) to each other; what is on the diagonal does not matter.
        most: Number of them, if there are so many.
    """
    return _to_others(costs).topk(min(most, costs.shape[-1] - 1), largest=False).indices


def shortest_ways(costs: Float[Tensor, "b v v"]) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b v"]]:
    """Every view's next one on its cheapest way to the first (Bellman-Ford).

    Args:
        costs: Of the step from each view (rows) to each other; what is on the diagonal does not matter.

    Returns:
        The next view of all but the first, and the costs of the ways.
    """
    b, v, _ = costs.shape
    costs = _to_others(costs)
    distance = costs.new_full((b, v), torch.inf)
    distance[:, 0] = 0
    parents = torch.zeros(b, v, dtype=torch.long, device=costs.device)
    for _ in range(v - 1):
        best, via = (costs + distance[:, None]).min(-1)
        shorter = best < distance
        distance = torch.where(shorter, best, distance)
        parents = torch.where(shorter, via, parents)
    return parents[:, 1:], distance


def pick(x: Float[Tensor, "b v *n"], views: Int[Tensor, "b k"]) -> Float[Tensor, "b k *n"]:
    """Some of the views of every scene."""
    index = views.reshape(*views.shape, *[1] * (x.ndim - 2))
    return x.gather(1, index.expand(*views.shape, *x.shape[2:]))


def chained(relative: Float[Tensor, "b n 4 4"], parents: Int[Tensor, "b n"]) -> Float[Tensor, "b v 4 4"]:
    """Poses of all views in the first one's frame.

    Args:
        relative: Poses of all views but the first, in their parents' frames.
        parents: From `shortest_ways`.
    """
    first = torch.eye(4, dtype=relative.dtype, device=relative.device).expand(len(relative), 1, 4, 4)
    poses = torch.cat([first, relative], 1)
    for _ in range(relative.shape[1] - 1):  # right after as many steps as the longest way has
        poses = torch.cat([first, pick(poses, parents) @ relative], 1)
    return poses


def _to_others(costs: Float[Tensor, "b v v"]) -> Float[Tensor, "b v v"]:
    """No view takes a step to itself."""
    return costs + torch.diag(costs.new_full(costs.shape[-1:], torch.inf))
