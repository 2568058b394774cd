"""How far the views of a scene agree on the colour of each other's points."""

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.consistency.reprojection import nearest_views, reproject
from nas3r.geometry import Cameras, select_views, unproject_depth

_MOST_VIEWS = 16  # that a view is compared with
_HIDDEN = 1.1  # times the depth that a view has there: what lies further behind is not seen
_COLOR_SIGMA = 0.1  # root mean square over the channels
_PRIOR_AGREEMENT = 0.5  # views that agree with everything


@torch.no_grad()
def color_agreement(
    images: Float[Tensor, "b v 3 h w"], depth: Float[Tensor, "b v h w"], cameras: Cameras
) -> Float[Tensor, "b v h w"]:
    """Of the views that have a pixel's point in sight, the share that shows its colour there. No gradient.

    A point of a wrong depth stands before what others see in another colour. Half a view that always agrees
    counts along, so the result is above 0, and 1 where no other view has the point in sight.

    Args:
        images: In [0, 1].
        depth: z-depth of the views, in the unit of the poses.
        cameras: Of the views.
    """
    points = unproject_depth(cameras, depth).flatten(2, 3)
    colors = images.flatten(3)
    agree = torch.full_like(points[..., 0], _PRIOR_AGREEMENT)
    seen = agree.clone()
    for others in nearest_views(cameras, _MOST_VIEWS):
        at = reproject(points, cameras, others)
        surface = at.look_up(select_views(depth, others)[:, :, None])[:, :, 0]
        visible = at.inside & (at.depth < _HIDDEN * surface)
        off = (at.look_up(select_views(images, others)) - colors).square().mean(2)
        agree += visible * torch.exp(-off / (2 * _COLOR_SIGMA**2))
        seen += visible
    return (agree / seen).unflatten(-1, depth.shape[-2:])
