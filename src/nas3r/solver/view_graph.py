"""The graph of the views of a scene: edges are pairs that match, and short ways lead to the first view."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.geometry import select_views, without_diagonal

_LEAST_AGREEMENT = 1e-3
_PENALTY = 8  # power: how many good edges are better than one worse edge


def edge_costs(agreement: Float[Tensor, "b v r"]) -> Float[Tensor, "b v r"]:
    """What an edge from a view to another adds to its way: several good edges are better than a worse one.

    Args:
        agreement: Mean mutual agreement of their matches, 0 to 1.
    """
    return agreement.clamp_min(_LEAST_AGREEMENT).pow(-_PENALTY)


def shortest_paths(costs: Float[Tensor, "b v v"]) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b v"]]:
    """Every view's next one on its cheapest way to the first (Bellman-Ford).

    Args:
        costs: Of the edge from each view (rows) to each other; the diagonal does not matter.

    Returns:
        The next view of all but the first, and the costs of the ways.
    """
    b, v, _ = costs.shape
    costs = without_diagonal(costs)
    distance = costs.new_full((b, v), torch.inf)
    distance[:, 0] = 0
    references = torch.zeros(b, v, dtype=torch.long, device=costs.device)
    for _ in range(v - 1):
        best, via = (costs + distance[:, None]).min(-1)
        shorter = best < distance
        distance = torch.where(shorter, best, distance)
        references = torch.where(shorter, via, references)
    return references[:, 1:], distance


def chain_poses(
    relative: Float[Tensor, "b n 4 4"], references: Int[Tensor, "b n"]
) -> Float[Tensor, "b v 4 4"]:
    """Poses of all views in the first one's frame.

    Args:
        relative: Poses of all views but the first, in their references' frames.
        references: From `shortest_paths`.
    """
    first = torch.eye(4, dtype=relative.dtype, device=relative.device).expand(len(relative), 1, 4, 4)
    poses = torch.cat([first, relative], 1)
    for _ in range(relative.shape[1] - 1):  # right after as many steps as the longest way has
        poses = torch.cat([first, select_views(poses, references) @ relative], 1)
    return poses
