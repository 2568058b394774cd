"""A blurred copy of every view behind the scene: what no view shows is then not black.

Seen from elsewhere, surfaces leave gaps. Without anything behind them the network learns to close gaps with
huge Gaussians, which blurs what is right.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, unproject

_QUANTILE, _BEHIND = 0.95, 1.5  # of a view's depth, and how many times as far the backdrop is
_RING = 2  # squares around the view, in the colours of its border
_SIGMA = 0.6
_OPACITY = 0.99


def num_squares(height: int, width: int, side: int) -> int:
    """Gaussians behind one view of so many pixels."""
    return (height // side + 2 * _RING) * (width // side + 2 * _RING)


def backdrop(
    images: Float[Tensor, "b v 3 h w"],
    depth: Float[Tensor, "b v h w"],
    cameras: Cameras,
    side: int,
    sh_degree: int,
) -> Gaussians:
    """Gaussians in the mean colours of squares, on a plane behind nearly all of what their view shows.

    Args:
        images: The context views.
        depth: Their z-depth; gets no gradient.
        cameras: Their cameras.
        side: Of a square in pixels; divides the height and the width.
        sh_degree: Of the result, whose colour is the same from everywhere.
    """
    colors = F.pad(F.avg_pool2d(images.flatten(0, 1), side), (_RING,) * 4, mode="replicate")
    rows, columns = (n // side for n in images.shape[-2:])
    y = (torch.arange(-_RING, rows + _RING, device=depth.device) + 0.5) / rows
    x = (torch.arange(-_RING, columns + _RING, device=depth.device) + 0.5) / columns
    grid = torch.cartesian_prod(y, x).flip(-1)
    z = _BEHIND * depth.detach().flatten(2).quantile(_QUANTILE, -1, keepdim=True)
    z = z.expand(*z.shape[:2], len(grid))
    means = unproject(cameras, grid.expand(*z.shape, 2), z).flatten(1, 2)
    sigma = (_SIGMA * z / (rows * cameras.intrinsics[..., 1, 1, None])).flatten(1, 2)
    colors = colors.flatten(2).mT.unflatten(0, images.shape[:2]).flatten(1, 2)
    return Gaussians.spheres(means, sigma, colors, _OPACITY, sh_degree=sh_degree)
