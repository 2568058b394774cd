"""What every compositor obeys and returns.

The rules are those of the original 3D Gaussian Splatting: alpha = min(0.99, opacity * exp(-q / 2)); splats
with alpha below 1/255 are skipped; blending is front to back by depth, equal depths in the order of the
Gaussians, and a pixel ends before the splat that would take its transmittance below 1e-4.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

MAX_ALPHA = 0.99
MIN_TRANSMITTANCE = 1e-4


@dataclass(frozen=True)
class Composite:
    """Blended splats, before background and normalisation.

    Attributes:
        color: Sum of weight times colour [b, v, 3, h, w].
        depth: Sum of weight times depth [b, v, h, w].
        alpha: Sum of weights [b, v, h, w].
        median_index: Which Gaussian holds the median depth [b, v, h, w], -1 where alpha is 0; or None.
    """

    color: Float[Tensor, "b v 3 h w"]
    depth: Float[Tensor, "b v h w"]
    alpha: Float[Tensor, "b v h w"]
    median_index: Int[Tensor, "b v h w"] | None = None
