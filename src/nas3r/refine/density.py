"""More Gaussians where the error asks for them, fewer where they do nothing.

Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", SIGGRAPH 2023, sec. 5: Gaussians
whose place the error pulls at most are cloned if they are small and split if they are large; faint ones go.
How many are divided follows from a share and not from a threshold, so that it does not depend on the image's
size or on how many views there are.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nas3r.geometry import matrix_from_quat
from nas3r.refine.free import FreeGaussians

_SHRINK = math.log(1.6)  # of the logarithm of the size of both halves


@dataclass(frozen=True)
class DensityConfig:
    """How the number of Gaussians changes.

    Attributes:
        most: Gaussians, at most.
        share: Of all, that are divided each time.
        rounds: How often, spread over the first part of the time.
        until: Where that part ends, in [0, 1].
        large: Size as a part of the distance from which a Gaussian is split, not cloned: 1 pixel of 700.
        faint: Opacity below which Gaussians go.
    """

    most: int = 500_000
    share: float = 0.1
    rounds: int = 4
    until: float = 0.5
    large: float = 1.5e-3
    faint: float = 0.01


class Pull:
    """How much the error pulls at every Gaussian's place: the mean over the steps that saw it."""

    def __init__(self, count: int) -> None:
        self._total = torch.zeros(count)
        self._seen = torch.zeros(count)

    @torch.no_grad()
    def add(self, gradient: Float[Tensor, "n 3"], scale: float) -> None:
        """Adds a step's gradient of places, in units of their distance.

        Args:
            gradient: Of the mean error of an image.
            scale: Of the image, which makes gradients of different sizes comparable.
        """
        size = gradient.norm(dim=-1)
        self._total += size * scale
        self._seen += size > 0

    @property
    def mean(self) -> Float[Tensor, "n"]:
        """For every Gaussian; 0 for those that no step saw."""
        return self._total / self._seen.clamp_min(1)


@torch.no_grad()
def renew(
    free: FreeGaussians,
    optimiser: torch.optim.Optimizer,
    pull: Float[Tensor, "n"],
    config: DensityConfig,
    generator: torch.Generator,
) -> None:
    """Divides what is pulled at most, and removes what is faint.

    Args:
        free: The Gaussians.
        optimiser: Theirs; new Gaussians start without memory.
        pull: See `Pull`.
        config: How many.
        generator: For the places of halves.
    """
    kept = free.logit_opacities.sigmoid() >= config.faint
    if not kept.any():
        return
    chosen = _most_pulled(pull, kept, config)
    large = free.log_scales.exp().amax(-1) > config.large * free.reach
    split, cloned = chosen[large[chosen]], chosen[~large[chosen]]
    stay = kept.nonzero()[:, 0]
    place = torch.full((len(kept),), -1).scatter(0, stay, torch.arange(len(stay)))
    free.take(torch.cat([stay, split, cloned]), optimiser, fresh=len(split) + len(cloned))
    halves = torch.cat([place[split], len(stay) + torch.arange(len(split))])
    _spread(free, halves, generator)


def _most_pulled(
    pull: Float[Tensor, "n"], kept: Bool[Tensor, "n"], config: DensityConfig
) -> Int[Tensor, "m"]:
    room = min(config.most - int(kept.sum()), round(config.share * len(pull)))
    order = torch.where(kept, pull, -1.0).argsort(descending=True, stable=True)
    return order[: max(room, 0)][pull[order[: max(room, 0)]] > 0]


def _spread(free: FreeGaussians, rows: Int[Tensor, "m"], generator: torch.Generator) -> None:
    """Places halves at random within the Gaussian they come from, and makes them smaller."""
    scales = free.log_scales[rows].exp()
    axes = matrix_from_quat(F.normalize(free.quats[rows], dim=-1))
    step = torch.randn(scales.shape, generator=generator) * scales
    free.offsets[rows] += (axes @ step[..., None])[..., 0] / free.reach[rows, None]
    free.log_scales[rows] -= _SHRINK
