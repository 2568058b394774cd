"""Cheap dense head: patch tokens to full-resolution maps by bilinear growth."""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.config_parts import check_part, integer

_NORM_GROUPS = 4


@dataclass(frozen=True)
class LiteConfig:
    """Dense heads that are cheap; they need a patch size that is a power of two.

    Attributes:
        width: Channels of the maps on the grid of patches.
    """

    width: int = integer(64)

    def __post_init__(self) -> None:
        check_part(self)


class LiteHead(nn.Module):
    """Projects the levels' patch tokens to one map, then doubles its size until it is the image's.

    Maps grow bilinearly: heads that shuffle channels into pixels dither. The last layer starts at zero, so
    that every output starts at its neutral value. Each convolution's output is normalised: without it, while
    the cameras are still wrong, the depth head followed noise until none of its units was active any more.

    Args:
        level_widths: Channels of the levels.
        patch_size: A power of two.
        width: Channels on the grid of patches; halved with every doubling, not below 32.
        out: Number of outputs per pixel.
        image_skip: Whether the image enters at full resolution.
    """

    def __init__(
        self, level_widths: list[int], patch_size: int, width: int, out: int, *, image_skip: bool
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        stages = int(math.log2(patch_size))
        widths = [width, *(max(width // 2**i, 32) for i in range(stages))]
        self.norms = nn.ModuleList(nn.LayerNorm(w, 1e-6) for w in level_widths)
        self.projects = nn.ModuleList(nn.Linear(w, width) for w in level_widths)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.conv_norms = nn.ModuleList(nn.GroupNorm(_NORM_GROUPS, b) for b in widths[1:])
        self.image = nn.Conv2d(3, widths[-1], 3, padding=1) if image_skip else None
        self.out = nn.Conv2d(widths[-1], out, 1)

    def reset_output(self) -> None:
        """Makes every output zero."""
        nn.init.zeros_(self.out.weight)
        if self.out.bias is not None:
            nn.init.zeros_(self.out.bias)

    def forward(
        self, levels: list[Float[Tensor, "b v p c"]], images: Float[Tensor, "b v 3 h w"]
    ) -> Float[Tensor, "b v out h w"]:
        """Outputs for every pixel.

        Args:
            levels: Patch tokens, row by row.
            images: For the image branch; their size is the output's.
        """
        height, width = images.shape[-2:]
        grid = (height // self.patch_size, width // self.patch_size)
        projected = [
            project(norm(x)) for norm, project, x in zip(self.norms, self.projects, levels, strict=True)
        ]
        x = torch.stack(projected).sum(0).flatten(0, 1).mT.unflatten(-1, grid)
        for conv, norm in zip(self.convs, self.conv_norms, strict=True):
            x = F.interpolate(F.gelu(norm(conv(x))), scale_factor=2, mode="bilinear")
        if self.image is not None:
            x = F.gelu(x + self.image(images.flatten(0, 1)))
        return self.out(x).unflatten(0, images.shape[:2])
