"""The table of splats that the kernels read; its columns are listed in `kernels.columns`."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.render.cpu.kernels.columns import COLUMNS, DEPTH
from nas3r.render.projection import MIN_ALPHA, Splats


@dataclass(frozen=True)
class SplatTable:
    """Splats of b x v views, one row each.

    Attributes:
        rows: float32 on the CPU [b, v, n, COLUMNS].
    """

    rows: Float[Tensor, "b v n 16"]

    def __post_init__(self) -> None:
        assert self.rows.shape[-1] == COLUMNS

    @property
    def depths(self) -> Float[Tensor, "b v n"]:
        """z in camera coordinates."""
        return self.rows[..., DEPTH]

    @classmethod
    def from_splats(cls, splats: Splats) -> "SplatTable":
        """The table of splats projected elsewhere."""
        differentiable = [
            splats.means2d,
            splats.conics,
            splats.opacities[..., None],
            splats.colors,
            splats.depths[..., None],
        ]
        xx, xy, _ = splats.conics.detach().unbind(-1)
        opacities = splats.opacities.detach().clamp_min(MIN_ALPHA)
        half_chord = (2 * (opacities / MIN_ALPHA).log() / xx).sqrt()
        follows = torch.stack([opacities.log2(), half_chord, xy / xx, 1 / splats.radii[..., 1]], -1)
        return cls(torch.cat([*differentiable, splats.radii, follows], -1))
