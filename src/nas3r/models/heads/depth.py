"""From the depth head's raw output to depth."""

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry import pixel_grid
from nas3r.models.config import ModelConfig

# A factor of 20 to either side of the scene's mean depth. Beyond it, parallax hardly changes, and an
# unbounded depth wanders off while the translation is still too small to be told from none.
_MAX_LOG_DEPTH = 3.0


def activate_depth(config: ModelConfig, raw: Float[Tensor, "b v h w"]) -> Float[Tensor, "b v h w"]:
    """Positive z-depth of the context views.

    "log" fixes the gauge: a scene's scale is free, so without it depth drifts to a bound. The mean log-depth
    of all context views is subtracted, hence the geometric mean depth of a scene stays close to 1.
    """
    if config.depth_activation == "sigmoid":
        near, far = config.depth_range
        return near + (far - near) * raw.sigmoid()
    if config.depth_activation == "exp":
        return raw.exp()
    centred = raw - raw.mean((1, 2, 3), keepdim=True)
    return (_MAX_LOG_DEPTH * torch.tanh(centred / _MAX_LOG_DEPTH)).exp()


def canonical_points(
    raw: Float[Tensor, "b v 3 h w"], pixel_offset: float = 0.5
) -> Float[Tensor, "b v 3 h w"]:
    """Points regressed in the first camera's frame, for the ablation.

    Raw zeros give the same points as zero log-depth lifted with identity cameras of focal length 1, so that
    both variants start from the same scene.
    """
    height, width = raw.shape[-2:]
    xy = pixel_grid(height, width, pixel_offset=pixel_offset, dtype=raw.dtype, device=raw.device) - 0.5
    return raw + torch.cat([xy, torch.ones_like(xy[..., :1])], -1).movedim(-1, 0)
