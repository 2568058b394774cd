"""From the Gaussian head's raw output to Gaussians."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.config_parts import check_part, integer
from nas3r.gaussians import MAX_STORED_SH_DEGREE, SH_C0
from nas3r.geometry import multiply_quats, quat_from_matrix

# A Gaussian of 0.7 pixels standard deviation per pixel covers the image without visible gaps or blur.
INITIAL_SIGMA_PIXELS = 0.7
# Learnt factors of the footprint stay within 1/8 and 8.
_MAX_LOG_FOOTPRINT = math.log(8.0)
_MAX_ABSOLUTE_SCALE = 0.3


@dataclass(frozen=True)
class PixelScale:
    """Scales relative to the footprint of a pixel at the Gaussian's depth.

    Attributes:
        least: Standard deviation, in pixels, that Gaussians do not fall below.
    """

    least: float = 0.0

    def __post_init__(self) -> None:
        check_part(self)
        if not 0 <= self.least < INITIAL_SIGMA_PIXELS:
            raise ValueError(
                f"least scale: expected at least 0 and less than {INITIAL_SIGMA_PIXELS} pixels, "
                f"got {self.least}"
            )


@dataclass(frozen=True)
class AbsoluteScale:
    """Scales in world units: min(0.001 softplus(x), 0.3)."""


@dataclass(frozen=True)
class GaussianConfig:
    """What the Gaussian head's output means.

    Attributes:
        stride: Side in pixels of the square that gets one Gaussian.
        sh_degree: Of the Gaussians' colour.
        color: "input_residual": the pixel's own colour plus a learnt residual; "sh": no colour given.
        scale: What standard deviations are relative to.
        rotation: Whether rotations are predicted in the frame of the Gaussian's own "camera", or in the
            "world", the first camera's.
        image: What the head's image branch sees: "raw" [0, 1] or "symmetric" [-1, 1].
        backdrop: Whether a blurred copy of every view stands behind the scene, so that what no view shows is
            not black (see `nas3r.models.backdrop`).
    """

    stride: int = integer(1)
    sh_degree: int = integer(0, least=0, most=MAX_STORED_SH_DEGREE)
    color: Literal["input_residual", "sh"] = "input_residual"
    scale: PixelScale | AbsoluteScale = field(default_factory=PixelScale)
    rotation: Literal["camera", "world"] = "camera"
    image: Literal["raw", "symmetric"] = "symmetric"
    backdrop: bool = False

    def __post_init__(self) -> None:
        check_part(self)


def raw_channels(sh_degree: int) -> int:
    """Outputs per Gaussian: opacity, 3 scales, 4 quaternion entries, 3 colours times the SH coefficients."""
    return 8 + 3 * (sh_degree + 1) ** 2


def sh_damping(sh_degree: int) -> Float[Tensor, "k"]:
    """Factors of the raw SH coefficients: 1 for degree 0, 0.1 * 0.25^d for degree d: colour starts flat."""
    factors = [1.0] + [
        0.1 * 0.25**degree for degree in range(1, sh_degree + 1) for _ in range(2 * degree + 1)
    ]
    return torch.tensor(factors)


def activate_opacity(raw: Float[Tensor, "*b c"]) -> Float[Tensor, "*b"]:
    """Opacity from channel 0."""
    return raw[..., 0].sigmoid()


def activate_scales(
    config: GaussianConfig, raw: Float[Tensor, "*b c"], footprint: Float[Tensor, "*b"]
) -> Float[Tensor, "*b 3"]:
    """Standard deviations from channels 1 to 3.

    Renderers blur by about half a pixel of theirs, so at one image size a Gaussian may be as small as it
    likes. From nearer, or in a larger image, it then leaves holes. A least size relative to the sampling is
    the 3D smoothing filter of Yu et al., "Mip-Splatting", CVPR 2024: variances add up.

    Args:
        config: Decides between world units and pixel footprints.
        raw: Head outputs.
        footprint: Size of the Gaussian's square at its depth, in world units.
    """
    x = raw[..., 1:4]
    if isinstance(config.scale, AbsoluteScale):
        return (0.001 * F.softplus(x)).clamp_max(_MAX_ABSOLUTE_SCALE)
    least = config.scale.least
    start = math.sqrt(INITIAL_SIGMA_PIXELS**2 - least**2)
    factor = start * (_MAX_LOG_FOOTPRINT * torch.tanh(x / _MAX_LOG_FOOTPRINT)).exp()
    return (factor.square() + least**2).sqrt() * footprint[..., None]


def activate_quats(
    config: GaussianConfig, raw: Float[Tensor, "*b c"], rotation: Float[Tensor, "*b 3 3"]
) -> Float[Tensor, "*b 4"]:
    """Unit quaternions (wxyz) in the world from channels 4 to 7.

    Args:
        config: Decides whether the head speaks about the world or about the Gaussian's own camera.
        raw: Head outputs.
        rotation: World-from-camera rotation of the Gaussian's camera, broadcastable.
    """
    q = raw[..., 4:8]
    if config.rotation == "world":
        return q / (q.norm(dim=-1, keepdim=True) + 1e-8)
    q = F.normalize(q + q.new_tensor([1.0, 0.0, 0.0, 0.0]), dim=-1)
    return multiply_quats(quat_from_matrix(rotation), q)


def activate_sh(
    config: GaussianConfig, raw: Float[Tensor, "*b c"], pixels: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b k 3"]:
    """SH coefficients from the channels after 8, stored colour by colour.

    Args:
        config: Decides whether the pixel's own colour is the starting point.
        raw: Head outputs.
        pixels: RGB in [0, 1] of the Gaussian's pixel.
    """
    sh = raw[..., 8:].unflatten(-1, (3, -1)).mT * sh_damping(config.sh_degree).to(raw)[:, None]
    if config.color == "sh":
        return sh
    own = F.pad(((pixels - 0.5) / SH_C0)[..., None, :], (0, 0, 0, sh.shape[-2] - 1))
    return sh + own
