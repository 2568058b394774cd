"""Image encoder: a vision transformer applied to each view on its own."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.config_parts import MOST_LAYERS, check_part, integer
from nas3r.layers.attention import Block, check_blocks
from nas3r.layers.rope import grid_positions, rope_table
from nas3r.models.checkpointing import run_block

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class RotaryPositions:
    """Rotary embedding in every block."""


@dataclass(frozen=True)
class LearnedPositions:
    """A table that is added once, resized to the image's grid of patches; a class token stands before them.

    Attributes:
        side: Of the table in patches.
        registers: Extra tokens beside the class token.
    """

    side: int = integer(37)
    registers: int = integer(0, least=0)

    def __post_init__(self) -> None:
        check_part(self)


@dataclass(frozen=True)
class EncoderConfig:
    """The image encoder.

    Attributes:
        width: Channels of the tokens.
        depth: Number of blocks.
        heads: Number of attention heads.
        mlp_ratio: Hidden width of the blocks' MLP over their width.
        stem: "conv": strided 3x3 convolutions (patch size a power of two); "patch": one convolution with
            kernel and stride of a patch.
        stem_norm: Whether every channel that leaves the stem loses its mean over the image and gets unit
            variance: patches of one image then differ, from the first step on.
        position: How tokens know their place.
        layer_scale: Initial value of the residual branches' scale; None for no such scale.
        eps: Epsilon of the layer norms.
        normalisation: What it sees: "symmetric" 2 x - 1, "imagenet" (x - mean) / std.
    """

    width: int = integer(96)
    depth: int = integer(2, least=0, most=MOST_LAYERS)
    heads: int = integer(3)
    mlp_ratio: float = 4.0
    stem: Literal["conv", "patch"] = "conv"
    stem_norm: bool = False
    position: RotaryPositions | LearnedPositions = field(default_factory=RotaryPositions)
    layer_scale: float | None = None
    eps: float = 1e-6
    normalisation: Literal["symmetric", "imagenet"] = "symmetric"

    def __post_init__(self) -> None:
        check_part(self)
        check_blocks("encoder", self.width, self.heads, self.mlp_ratio)


def normalise_images(images: Float[Tensor, "*b 3 h w"], how: str) -> Float[Tensor, "*b 3 h w"]:
    """Images in [0, 1] as a network expects them: "raw", "symmetric" or "imagenet"."""
    if how == "symmetric":
        return 2 * images - 1
    if how == "imagenet":
        mean, std = (images.new_tensor(c)[:, None, None] for c in (_IMAGENET_MEAN, _IMAGENET_STD))
        return (images - mean) / std
    return images


class PatchStem(nn.Module):
    """One linear map per patch."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c gh gw"]:
        """Feature map on the grid of patches."""
        return self.proj(images)


class ConvStem(nn.Sequential):
    """Strided 3x3 convolutions down to the grid of patches.

    Optimises better than a patch-sized convolution (Xiao et al., "Early Convolutions Help Transformers See
    Better"); without it, training from nothing did not leave the plateau "average the context images".
    """

    def __init__(self, width: int, patch_size: int) -> None:
        stages = int(math.log2(patch_size))
        widths = [3, *(max(width // 2**i, 24) for i in range(stages - 1, -1, -1))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GELU()]
        super().__init__(*layers, nn.Conv2d(width, width, 1))


class ImageEncoder(nn.Module):
    """Images to patch tokens.

    Args:
        config: Of the encoder.
        patch_size: Side of a patch in pixels.
    """

    def __init__(self, config: EncoderConfig, patch_size: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        stem = ConvStem if config.stem == "conv" else PatchStem
        self.patch_embed = stem(width, patch_size)
        self.stem_norm = nn.InstanceNorm2d(width, affine=True) if config.stem_norm else nn.Identity()
        if isinstance(config.position, LearnedPositions):
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
            self.register_tokens = nn.Parameter(torch.zeros(1, config.position.registers, width))
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.position.side**2, width))
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.heads,
                mlp_ratio=config.mlp_ratio,
                layer_scale=config.layer_scale,
                eps=config.eps,
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, config.eps)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n p c"]:
        """Patch tokens, row by row, of images in [0, 1]."""
        config = self.config
        features = self.stem_norm(self.patch_embed(normalise_images(images, config.normalisation)))
        rows, columns = features.shape[-2:]
        tokens = features.flatten(2).mT
        rope, prefix = None, 0
        if isinstance(config.position, LearnedPositions):
            tokens, prefix = self._add_positions(tokens, rows, columns), 1 + config.position.registers
        else:
            head_width = config.width // config.heads
            rope = rope_table(grid_positions(rows, columns, device=images.device), head_width)
        for block in self.blocks:
            tokens, _ = run_block(block, tokens, rope)
        return self.norm(tokens)[:, prefix:]

    def _add_positions(
        self, tokens: Float[Tensor, "n p c"], rows: int, columns: int
    ) -> Float[Tensor, "n q c"]:
        """Class token, registers (which get no position) and patches with the table's positions."""
        positions = self.position_table(rows, columns)
        n = tokens.shape[0]
        cls = (self.cls_token + positions[:, :1]).expand(n, -1, -1)
        return torch.cat([cls, self.register_tokens.expand(n, -1, -1), tokens + positions[:, 1:]], 1)

    def position_table(self, rows: int, columns: int) -> Float[Tensor, "1 q c"]:
        """The learnt table resized to a grid (bicubic, antialiased); its class row stays."""
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        if (rows, columns) == (side, side):
            return self.pos_embed
        table = self.pos_embed[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
        table = F.interpolate(table, (rows, columns), mode="bicubic", antialias=True)
        return torch.cat([self.pos_embed[:, :1], table.flatten(2).mT.to(self.pos_embed.dtype)], 1)
