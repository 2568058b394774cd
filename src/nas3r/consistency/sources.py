"""Which other views a view is compared with."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry import Cameras, project, unproject_depth

_ANGLE = math.radians(8)  # between rays: depth is found well, and views still look alike
_WIDTH = 0.9  # of the logarithm of angles around it


def source_views(cameras: Cameras, depth: Float[Tensor, "v h w"], most: int) -> list[list[int]]:
    """Of every view the others that show much of the same from another side, the best first.

    Args:
        cameras: Batch of one.
        depth: z-depth of the views, roughly right.
        most: How many for each, at most.
    """
    count = cameras.num_views
    points = unproject_depth(cameras, depth[None])[0].flatten(1, 2)[:, ::37]
    centers = cameras.centers[0]
    chosen = []
    for view in range(count):
        mine = points[view]
        xy, z = project(cameras, mine[None])
        inside = ((xy[0] > 0) & (xy[0] < 1)).all(-1) & (z[0] > 0)
        toward = torch.nn.functional.normalize(mine - centers[:, None], dim=-1)
        angle = torch.acos((toward * toward[view]).sum(-1).clamp(-1, 1)).clamp_min(1e-4)
        good = torch.exp(-0.5 * ((angle / _ANGLE).log() / _WIDTH) ** 2)
        score = (inside * good).mean(-1)
        score[view] = -1
        order = sorted(range(count), key=lambda other: -score[other].item())
        chosen.append(order[: min(most, count - 1)])
    return chosen
