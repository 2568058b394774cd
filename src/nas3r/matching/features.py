"""Features that are alike where images show the same thing: what views are matched by."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.config_parts import MOST_LAYERS, check_part, integer

_PROJECTIONS = 24  # per patch
_SEED = 0  # of the projections: they are the same in every model
_LEAST_CONTRAST = 0.02  # length of a patch's projection below which it counts for little
_SPACINGS = (1, 2, 4, 1)  # of the layers that are learnt: each sees 17 x 17 cells in the end
_LEARNT = 64  # channels of the learnt part of a feature


class PatchProjections(nn.Module):
    """Features that are alike where patches of images are; nothing is learnt.

    Random orthogonal projections of patches of several sizes, without their mean colour and with their
    contrast normalised: their inner product is near to normalised cross-correlation, at a fraction of the
    cost.

    Args:
        patches: Sides and spacings of the patches in pixels.
    """

    def __init__(self, patches: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.patches = tuple(patches)
        self.channels = _PROJECTIONS * len(self.patches)
        generator = torch.Generator().manual_seed(_SEED)
        for i, (side, _) in enumerate(self.patches):
            weight = torch.randn(_PROJECTIONS, 3, side, side, generator=generator, device="cpu")
            flat = (weight - weight.mean((2, 3), keepdim=True)).flatten(1)
            weight = torch.linalg.qr(flat.mT)[0].mT.reshape(weight.shape)
            self.register_buffer(f"weight{i}", weight, persistent=False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h w"]:
        """Features of length one at most; shorter where there is no contrast."""
        parts = []
        for i, (side, spacing) in enumerate(self.patches):
            pad = side // 2 * spacing
            padded = F.pad(images, (pad,) * 4, mode="replicate")
            x = F.conv2d(padded, self.get_buffer(f"weight{i}"), dilation=spacing)
            parts.append(x / ((x * x).sum(1, keepdim=True).sqrt() + _LEAST_CONTRAST))
        return torch.cat(parts, 1) / math.sqrt(len(parts))


@dataclass(frozen=True)
class LearntFeaturesConfig:
    """The network that learns what to match views by.

    Attributes:
        width: Its channels.
        scales: Sizes of the image that it looks at; with one, its layers are dilated instead.
    """

    width: int = integer(64)
    scales: int = integer(3, most=MOST_LAYERS)

    def __post_init__(self) -> None:
        check_part(self)


class LearntFeatures(nn.Module):
    """Patch projections, and beside them what a small convolutional network makes of them.

    Args:
        patches: As for `PatchProjections`.
        config: Of the network.
    """

    def __init__(self, patches: Sequence[tuple[int, int]], config: LearntFeaturesConfig) -> None:
        super().__init__()
        width, scales = config.width, config.scales
        self.projections = PatchProjections(patches)
        self.channels = self.projections.channels + _LEARNT
        self.enter = nn.Conv2d(self.projections.channels, width, 1)
        dilated = nn.Sequential(*(_Residual(width, spacing) for spacing in _SPACINGS))
        self.layers = _Pyramid(width, scales) if scales > 1 else dilated
        self.norm = nn.GroupNorm(1, width)
        self.leave = nn.Conv2d(width, _LEARNT, 1)
        self.share = nn.Parameter(torch.tensor(0.0))  # of what is learnt, before a sigmoid

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h w"]:
        """Features of length one at most."""
        fixed = self.projections(images)
        learnt = F.normalize(self.leave(self.norm(self.layers(self.enter(fixed)))), dim=1)
        share = self.share.sigmoid()
        return torch.cat([(1 - share).sqrt() * fixed, share.sqrt() * learnt], 1)


class _Pyramid(nn.Module):
    """Down to smaller and smaller images and up again (a U-Net of one layer per halving)."""

    def __init__(self, width: int, scales: int) -> None:
        super().__init__()
        widths = [width + i * width // 2 for i in range(scales)]
        halvings = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(_Residual(w, 1) for w in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 1) for fine, coarse in halvings)
        self.grow = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in halvings)
        self.up = nn.ModuleList(_Residual(w, 1) for w in widths[:-1])

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        finer = []
        for down, shrink in zip(self.down, [*self.shrink, None], strict=True):
            x = down(x)
            if shrink is not None:
                finer.append(x)
                x = shrink(F.avg_pool2d(x, 2, ceil_mode=True))
        for grow, up in zip(reversed(self.grow), reversed(self.up), strict=True):
            fine = finer.pop()
            x = up(fine + F.interpolate(grow(x), fine.shape[-2:], mode="bilinear"))
        return x


class _Residual(nn.Module):
    def __init__(self, width: int, spacing: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.around = nn.Conv2d(width, width, 3, padding=spacing, dilation=spacing, padding_mode="replicate")
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x + self.mix(F.gelu(self.around(self.norm(x))))
