"""Dense prediction head (Ranftl et al., "Vision Transformers for Dense Prediction", ICCV 2021)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.config_parts import check_part, integer, integers


@dataclass(frozen=True)
class DptConfig:
    """Dense heads that fuse four levels; what differs between the published families is a field.

    Attributes:
        width: Channels of the fused maps.
        channels: Channels of the four levels before fusion.
        norm: Whether a layer norm precedes the levels' projections.
        position: Weight of the sinusoidal position embedding added to the maps; 0 for none.
        relu_skip: Whether the residual units carry relu(z) instead of z past their convolutions.
        fusion: Fused maps grow to the size of the "next" level, or by "double" (cropped to that size).
        depth_hidden: Channels of the depth head's two last convolutions.
        depth_confidence: Whether the depth head has a second, unused output.
        gaussian_hidden: Channels of the Gaussian head's image branch and of its last convolution.
        gaussian_tail: Last layers of the Gaussian head: "before": a convolution precedes the image branch;
            "after": only doubling precedes it, and dropout follows.
        gaussian_dropout: Dropout of the Gaussian head in training (tail "after").
    """

    width: int = integer(256)
    channels: tuple[int, int, int, int] = integers((256, 512, 1024, 1024))
    norm: bool = True
    position: float = 0.0
    relu_skip: bool = False
    fusion: Literal["next", "double"] = "next"
    depth_hidden: tuple[int, int] = integers((128, 32))
    depth_confidence: bool = False
    gaussian_hidden: tuple[int, int] = integers((128, 32))
    gaussian_tail: Literal["before", "after"] = "before"
    gaussian_dropout: float = 0.0

    def __post_init__(self) -> None:
        check_part(self)


def position_map(
    channels: int, height: int, width: int, aspect: float, device: torch.device | None = None
) -> Float[Tensor, "c h w"]:
    """Sines and cosines of centred image coordinates, whose diagonal half-length is 1.

    Half of the channels speak of u (to the right), half of v (down), with frequencies 100^(-k / (c / 4)).

    Args:
        channels: A multiple of 4.
        height: Of the map.
        width: Of the map.
        aspect: Width over height of the image.
        device: Of the result.
    """
    diagonal = math.hypot(aspect, 1.0)
    omega = 100.0 ** (-torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))

    def waves(count: int, half_side: float) -> Float[Tensor, "n c"]:
        edge = half_side * (count - 1) / count
        angles = torch.linspace(-edge, edge, count, dtype=torch.float64)[:, None] * omega
        return torch.cat([angles.sin(), angles.cos()], -1).float().to(device)

    u = waves(width, aspect / diagonal).mT[:, None, :].expand(-1, height, -1)
    v = waves(height, 1.0 / diagonal).mT[:, :, None].expand(-1, -1, width)
    return torch.cat([u, v])


def _resize(x: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c h2 w2"]:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, beside a skip connection.

    Args:
        channels: Of the map.
        relu_skip: Whether the skip carries relu(x) instead of x.
    """

    def __init__(self, channels: int, *, relu_skip: bool) -> None:
        super().__init__()
        self.relu_skip = relu_skip
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """A map of the same size."""
        rectified = F.relu(x)
        skip = rectified if self.relu_skip else x
        return skip + self.conv2(F.relu(self.conv1(rectified)))


class Fusion(nn.Module):
    """Adds a finer level to a coarser map and enlarges the sum."""

    def __init__(self, channels: int, *, relu_skip: bool, coarsest: bool) -> None:
        super().__init__()
        self.unit1 = None if coarsest else ResidualUnit(channels, relu_skip=relu_skip)
        self.unit2 = ResidualUnit(channels, relu_skip=relu_skip)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(
        self, level: Float[Tensor, "n c h w"], coarser: Tensor | None, size: tuple[int, int]
    ) -> Float[Tensor, "n c h2 w2"]:
        """Fused map of the given size; the coarsest block has no map to add to."""
        x = level
        if self.unit1 is not None:
            assert coarser is not None
            x = coarser + self.unit1(level)
        return self.out(_resize(self.unit2(x), size))


class DPTHead(nn.Module):
    """Four levels of patch tokens, fused from coarse to fine, and a tail at full resolution.

    Args:
        config: Of the dense heads.
        level_widths: Channels of the four levels.
        patch_size: Side of a patch in pixels.
        hidden: Channels of the two convolutions of the tail.
        out: Outputs per pixel.
        image: Whether the image enters the tail.
    """

    def __init__(
        self,
        config: DptConfig,
        level_widths: list[int],
        patch_size: int,
        hidden: tuple[int, int],
        out: int,
        *,
        image: bool,
    ) -> None:
        super().__init__()
        self.config = config
        self.patch_size = patch_size
        channels, features = config.channels, config.width
        self.norm = nn.LayerNorm(level_widths[0], 1e-5) if config.norm else nn.Identity()
        self.projects = nn.ModuleList(nn.Conv2d(w, c, 1) for w, c in zip(level_widths, channels))
        self.resizes = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            ]
        )
        self.reduces = nn.ModuleList(nn.Conv2d(c, features, 3, padding=1, bias=False) for c in channels)
        self.fusions = nn.ModuleList(
            Fusion(features, relu_skip=config.relu_skip, coarsest=i == 3) for i in range(4)
        )
        # The tail of the official mast3r-type Gaussian head has no convolution before the image enters.
        late = image and config.gaussian_tail == "after"
        self.conv1 = nn.Identity() if late else nn.Conv2d(features, hidden[0], 3, padding=1)
        self.image = nn.Conv2d(3, hidden[0], 7, padding=3) if image else None
        self.conv2 = nn.Conv2d(hidden[0], hidden[1], 3, padding=1, bias=not late)
        self.dropout = nn.Dropout(config.gaussian_dropout if image else 0.0)
        self.out = nn.Conv2d(hidden[1], out, 1)

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
        views, size = images.shape[:2], (images.shape[-2], images.shape[-1])
        x = self.conv1(self._fuse([x.flatten(0, 1) for x in levels], size))
        x = _resize(x, size)
        if self.image is not None:
            x = x + F.relu(self.image(images.flatten(0, 1)))
        x = self.dropout(F.relu(self.conv2(self._placed(x, size))))
        return self.out(x).unflatten(0, views)

    def _fuse(
        self, levels: list[Float[Tensor, "n p c"]], size: tuple[int, int]
    ) -> Float[Tensor, "n c h2 w2"]:
        """One map of eight times the patch grid's size."""
        grid = tuple(s // self.patch_size for s in size)
        maps: list[Tensor] = []
        for tokens, project, resize, reduce in zip(levels, self.projects, self.resizes, self.reduces):
            x = project(self.norm(tokens).mT.unflatten(-1, grid))
            maps.append(reduce(resize(self._placed(x, size))))
        fused = None
        for i in (3, 2, 1, 0):
            h, w = maps[i].shape[-2:]
            double, finer = (2 * h, 2 * w), tuple(maps[i - 1].shape[-2:]) if i else (2 * h, 2 * w)
            fused = self.fusions[i](maps[i], fused, double if self.config.fusion == "double" else finer)
            fused = fused[..., : finer[0], : finer[1]]
        assert fused is not None
        return fused

    def _placed(self, x: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c h w"]:
        """The map with the position embedding added, where the config has one."""
        if not self.config.position:
            return x
        channels, height, width = x.shape[1:]
        return x + self.config.position * position_map(channels, height, width, size[1] / size[0], x.device)
