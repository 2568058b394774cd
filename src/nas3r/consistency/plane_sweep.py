"""Depth at which a view looks like the other views that see it (multi-view stereo by plane sweep).

Collins, "A Space-Sweep Approach to True Multi-Image Matching", CVPR 1996, with planes that follow a first
estimate of the depth.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.consistency.reprojection import nearest_views, reproject
from nas3r.geometry import Cameras, gaussian_blur, pixel_grid, select_views, unproject

_STEP, _STEPS = 0.06, 8  # of log-depth; on either side
_STRIDE = 2  # pixels per depth that is looked for
_MOST_VIEWS = 8  # that a view is compared with
_SMOOTHING = 4.0  # pixels of standard deviation: windows in which views are compared
_SHARPNESS = 20.0  # of the choice among depths by likeness
_RELUCTANCE = 1.0  # against the largest change, likewise
_UNSEEN = 0.5  # views without likeness that count along


@torch.no_grad()
def sweep_factor(
    features: Float[Tensor, "b v c h w"], depth: Float[Tensor, "b v h w"], cameras: Cameras
) -> Float[Tensor, "b v h w"]:
    """What to multiply depth by, so that views look alike where they show the same points. No gradient.

    Factors from 0.6 to 1.6 compete by the mean likeness to the views that see the point, in a window. The
    logarithm of the result is the mean of theirs, weighted by a softmax: where all look alike, it stays.

    Args:
        features: Of pixels, of length one at most; inner products are likenesses. Even height and width.
        depth: z-depth of the views, in the unit of the poses.
        cameras: Of the views.
    """
    h, w = (n // _STRIDE for n in depth.shape[-2:])
    queries = _thinned(features).flatten(3)
    xy = (
        pixel_grid(h, w, dtype=depth.dtype, device=depth.device).flatten(0, 1).expand(*depth.shape[:2], -1, 2)
    )
    start = _thinned(depth[:, :, None]).flatten(2)
    shifts = _STEP * torch.arange(-_STEPS, _STEPS + 1, device=depth.device, dtype=depth.dtype)
    alike = depth.new_zeros(len(shifts), *start.shape)
    seen = torch.full_like(alike, _UNSEEN)
    for others in nearest_views(cameras, _MOST_VIEWS):
        other_features = select_views(features, others)
        for i, shift in enumerate(shifts):
            at = reproject(unproject(cameras, xy, start * shift.exp()), cameras, others)
            alike[i] += at.inside * (queries * at.look_up(other_features)).sum(2)
            seen[i] += at.inside
    likeness = (alike / seen).unflatten(-1, (h, w)).flatten(0, 1)
    likeness = gaussian_blur(likeness, _SMOOTHING / _STRIDE).unflatten(0, (len(shifts), -1))
    cost = _RELUCTANCE * (shifts / shifts[-1]).square()
    chosen = (_SHARPNESS * likeness - cost[:, None, None, None, None]).softmax(0)
    moved = (chosen * shifts[:, None, None, None, None]).sum(0)
    return F.interpolate(moved, size=depth.shape[-2:], mode="bilinear").exp()


def _thinned(maps: Float[Tensor, "b v c h w"]) -> Float[Tensor, "b v c h/2 w/2"]:
    return F.avg_pool2d(maps.flatten(0, 1), _STRIDE).unflatten(0, maps.shape[:2])
