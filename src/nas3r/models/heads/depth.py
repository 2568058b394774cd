"""From the depth head's raw output to depth."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.config_parts import check_part
from nas3r.geometry import pixel_grid

# A factor of 20 to either side of the scene's mean depth. Beyond it, parallax hardly changes, and an
# unbounded depth wanders off while the translation is still too small to be told from none.
_MAX_LOG_DEPTH = 3.0
_NEAREST = 1e-3  # depth at which regressed points at or behind their camera are taken


@dataclass(frozen=True)
class LogDepth:
    """Exp of log-depth, bounded, with the scene's mean subtracted: the geometric mean depth stays close to 1.

    A scene's scale is free; without this it drifts to a bound.
    """


@dataclass(frozen=True)
class BoundedDepth:
    """A sigmoid between two planes.

    Attributes:
        near: Depth of the nearer plane, in the unit of the poses.
        far: Of the other.
    """

    near: float = 1.0
    far: float = 100.0

    def __post_init__(self) -> None:
        check_part(self)


@dataclass(frozen=True)
class CanonicalPoints:
    """3D points in the first camera's frame are regressed instead of depth (ablation)."""


@dataclass(frozen=True)
class DepthConfig:
    """What the depth head's output means, and where in its pixel a Gaussian is lifted from.

    Attributes:
        output: What the depth head's output means. Depth is lifted with the predicted cameras.
        pixel_offset: Where in its pixel a Gaussian is lifted from: 0.5 centre, 0.0 corner.
    """

    output: LogDepth | BoundedDepth | CanonicalPoints = field(default_factory=LogDepth)
    pixel_offset: float = 0.5

    def __post_init__(self) -> None:
        check_part(self)

    @property
    def lifted(self) -> bool:
        """Whether depth is predicted and lifted, and not points regressed."""
        return not isinstance(self.output, CanonicalPoints)

    @property
    def starts_from_log_depth(self) -> bool:
        """Whether the output is log-depth, so that depth known from elsewhere can be where it starts from."""
        return isinstance(self.output, LogDepth)

    @property
    def channels(self) -> int:
        """Outputs of the depth head that are used."""
        return 1 if self.lifted else 3


def view_depths(config: DepthConfig, raw: Float[Tensor, "b v c h w"]) -> Float[Tensor, "b v h w"]:
    """z-depth of the context views; of regressed points in the first camera, which needs no others."""
    if config.lifted:
        return activate_depth(config, raw[:, :, 0])
    return canonical_points(raw[:, :, :3], config.pixel_offset)[:, :, 2].clamp_min(_NEAREST)


def activate_depth(config: DepthConfig, raw: Float[Tensor, "b v h w"]) -> Float[Tensor, "b v h w"]:
    """Positive z-depth of the context views, from one output per pixel."""
    if isinstance(config.output, BoundedDepth):
        near, far = config.output.near, config.output.far
        return near + (far - near) * raw.sigmoid()
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
