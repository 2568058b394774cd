"""How much free space surrounds a point: distances to the solids."""

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.synthetic import shapes
from nas3r.data.synthetic.worlds import Worlds


def free_distance(
    worlds: Worlds, points: Float[Tensor, "b n 3"], time: Float[Tensor, "b n"] | None = None
) -> Float[Tensor, "b n"]:
    """Lower bound of the distance from points to the nearest surface; negative inside solids or outside rooms.

    Exact for boxes and the insides of rooms; rough solids, rings and gables count as the box around them;
    ellipsoids and cylinders are bounded through their least half extent.

    Args:
        worlds: b worlds.
        points: In world coordinates.
        time: In frames, for moving solids; zero if None.
    """
    distance = solid_distances(worlds, points, time)
    return distance.amin(-1)


def solid_distances(
    worlds: Worlds, points: Float[Tensor, "b n 3"], time: Float[Tensor, "b n"] | None = None
) -> Float[Tensor, "b n p"]:
    """The same for each solid; infinite for unused slots."""
    center = worlds.center[:, None]
    if time is not None:
        center = worlds.centers_at(time)
    local = torch.einsum("bpij,bnpi->bnpj", worlds.rotation, points[:, :, None] - center)
    half = worlds.half[:, None]
    kind = worlds.kind[:, None].expand(local.shape[:3])
    beyond = local.abs() - half
    box = beyond.clamp_min(0).norm(dim=-1) + beyond.amax(-1).clamp_max(0)
    ball = ((local / half).norm(dim=-1) - 1) * half.amin(-1)
    round_part = ((local / half)[..., ::2].norm(dim=-1) - 1) * half[..., ::2].amin(-1)
    cylinder = torch.maximum(round_part, beyond[..., 1])
    distance = torch.where(kind == shapes.ELLIPSOID, ball, box)
    distance = torch.where(kind == shapes.CYLINDER, cylinder, distance)
    distance = torch.where(kind == shapes.ROOM, -beyond.amax(-1), distance)
    return torch.where(kind == shapes.UNUSED, torch.inf, distance)
