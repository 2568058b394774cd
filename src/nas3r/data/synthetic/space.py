"""How much free space surrounds a point: distances to the solids."""

from typing import Any

import torch
from jaxtyping import Float, Int
from numba import njit
from torch import Tensor

from nas3r.data.synthetic import shapes
from nas3r.data.synthetic.worlds import Worlds

_compiled: Any = njit(cache=True, fastmath=True, nogil=True)


def free_distance(
    worlds: Worlds, points: Float[Tensor, "b n 3"], time: Float[Tensor, "b n"] | None = None
) -> Float[Tensor, "b n"]:
    """Lower bound of the distance from points to the nearest surface; negative inside solids or outside
    rooms.

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


@_compiled
def _is_clear(kind, center, half, rotation, point, clearance):
    """Whether a point is farther than `clearance` from every solid: `free_distance` with early ends."""
    for j in range(len(kind)):
        if kind[j] == shapes.UNUSED:
            continue
        toward_x, toward_y, toward_z = (
            point[0] - center[j, 0],
            point[1] - center[j, 1],
            point[2] - center[j, 2],
        )
        r = rotation[j]
        x = abs(r[0, 0] * toward_x + r[1, 0] * toward_y + r[2, 0] * toward_z)
        y = abs(r[0, 1] * toward_x + r[1, 1] * toward_y + r[2, 1] * toward_z)
        z = abs(r[0, 2] * toward_x + r[1, 2] * toward_y + r[2, 2] * toward_z)
        hx, hy, hz = half[j]
        if kind[j] == shapes.ROOM:
            if max(x - hx, y - hy, z - hz) > -clearance:
                return False
        elif kind[j] == shapes.ELLIPSOID:
            reach = 1 + clearance / min(hx, hy, hz)
            if (x / hx) ** 2 + (y / hy) ** 2 + (z / hz) ** 2 < reach**2:
                return False
        elif kind[j] == shapes.CYLINDER:
            reach = 1 + clearance / min(hx, hz)
            if y - hy < clearance and (x / hx) ** 2 + (z / hz) ** 2 < reach**2:
                return False
        else:
            x, y, z = max(x - hx, 0.0), max(y - hy, 0.0), max(z - hz, 0.0)
            if x * x + y * y + z * z < clearance**2:
                return False
    return True


@_compiled
def _first_clear(kind, center, half, rotation, velocity, clearance, positions, chosen):
    for world in range(positions.shape[0]):
        chosen[world] = positions.shape[1] - 1
        for path in range(positions.shape[1]):
            clear = True
            for frame in range(positions.shape[2]):
                moved = center[world] + velocity[world] * frame
                point = positions[world, path, frame]
                if not _is_clear(kind[world], moved, half[world], rotation[world], point, clearance[world]):
                    clear = False
                    break
            if clear:
                chosen[world] = path
                break


def first_clear_path(worlds: Worlds, positions: Float[Tensor, "b k f 3"]) -> Int[Tensor, "b"]:
    """Index of each world's first path that keeps its clearance in every frame; the last if none does.

    Frame i is at time i. The compiled twin of asking `free_distance`, ending early.
    """
    chosen = torch.zeros(len(worlds), dtype=torch.long)
    _first_clear(
        *(
            getattr(worlds, name).contiguous().numpy()
            for name in ("kind", "center", "half", "rotation", "velocity", "clearance")
        ),
        positions.contiguous().numpy(),
        chosen.numpy(),
    )
    return chosen
