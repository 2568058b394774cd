"""Where each patch of a view reappears in a reference view: a local cost volume, told to the tokens."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nas3r.config_parts import check_part, integer

_INITIAL_SHARPNESS = 8.0  # of the softmax over cosine similarities
_SHARPER = 3.0  # factor on the logits of the second, more decided estimate of the displacement
_FLOW_VALUES = 5  # two displacements and a probability
_FLOOR = 1e-2  # added to probabilities (relative to uniform) before their logarithm


@dataclass(frozen=True)
class CostVolumeConfig:
    """The cost volume.

    Attributes:
        radius: Of its window, in half patches.
        displacements: Whether tokens are told displacements and their places too.
    """

    radius: int = integer(5)
    displacements: bool = True

    def __post_init__(self) -> None:
        check_part(self)


class CostVolume(nn.Module):
    """Compares features of a view with those of a reference view within a window around the same place.

    Attention can learn to match, but from random weights it takes far more samples than a cost volume, whose
    features are useful before training (random convolutions keep similar patches similar). The idea is the
    correlation layer of Dosovitskiy et al., "FlowNet", ICCV 2015. Features live on a grid twice as fine as
    that of the patches.

    With `displacements`, tokens are also told the expected displacement, how certain it is, and their place
    in the image. A network could read all this off the cost volume and the rotary embedding, but what a
    displacement says about the camera depends on where it is, and being told speeds up learning.

    A target is compared with a context view only, never with another target, so nothing leaks.

    Args:
        config: Of the cost volume.
        width: Channels of the tokens.
        patch_size: A power of two, at least 2.
        channels: Of the features.
    """

    def __init__(self, config: CostVolumeConfig, width: int, patch_size: int, *, channels: int = 32) -> None:
        super().__init__()
        self.radius = radius = config.radius
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 5, stride=min(patch_size // 2, 2), padding=2),
            nn.GELU(),
        ]
        for _ in range(int(math.log2(patch_size)) - 2):
            layers += [nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, channels, 3, padding=1))
        self.sharpness = nn.Parameter(torch.tensor(_INITIAL_SHARPNESS))
        self.fc1 = nn.Linear(4 * (2 * radius + 1) ** 2, 2 * width)
        self.flow = nn.Linear(4 * _FLOW_VALUES + 2, 2 * width) if config.displacements else None
        self.fc2 = nn.Linear(2 * width, width)

    def features(self, images: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, "b v c gh gw"]:
        """Unit features of images in [0, 1], two cells per patch along each axis.

        The mean over the image is removed first: it is common to all cells and would hide their differences.
        """
        x = self.layers(2 * images.flatten(0, 1) - 1)
        x = F.normalize(x - x.mean((2, 3), keepdim=True), dim=1)
        return x.unflatten(0, images.shape[:2])

    def forward(
        self, features: Float[Tensor, "b v c gh gw"], reference: Float[Tensor, "b v c gh gw"]
    ) -> Float[Tensor, "b v p d"]:
        """What to add to the views' patch tokens.

        Args:
            features: Of the views.
            reference: Of the view that each is compared with.
        """
        b, v, _, h, w = features.shape
        similarity = features.flatten(0, 1).flatten(2).mT @ reference.flatten(0, 1).flatten(2)
        index, inside = _window(h, w, self.radius, features.device)
        local = similarity.gather(2, index.expand(b * v, -1, -1)) * self.sharpness
        logits = local.masked_fill(~inside, -torch.inf)
        probability = logits.softmax(-1)
        cost = torch.log(probability * local.shape[-1] + _FLOOR) * inside

        def by_patch(cells: Tensor) -> Float[Tensor, "b v p c"]:
            """The four cells of a patch side by side."""
            return cells.reshape(b, v, h // 2, 2, w // 2, 2, -1).transpose(3, 4).flatten(2, 3).flatten(3)

        hidden = self.fc1(by_patch(cost))
        if self.flow is not None:
            places = _patch_places(h // 2, w // 2, features.device).expand(b, v, -1, -1)
            displacements = by_patch(self._displacements(probability, logits))
            hidden = hidden + self.flow(torch.cat([displacements, places], -1))
        return self.fc2(F.gelu(hidden))

    def _displacements(
        self, probability: Float[Tensor, "n q k"], logits: Float[Tensor, "n q k"]
    ) -> Float[Tensor, "n q 5"]:
        """Expected displacements in radii, plain and sharper, and the largest probability."""
        line = torch.arange(-self.radius, self.radius + 1, device=logits.device) / self.radius
        offsets = torch.cartesian_prod(line, line).flip(-1).to(probability)  # x, y; row by row
        sharper = (_SHARPER * logits).softmax(-1)
        return torch.cat([probability @ offsets, sharper @ offsets, probability.amax(-1, keepdim=True)], -1)


def _patch_places(rows: int, columns: int, device: torch.device) -> Float[Tensor, "1 1 p 2"]:
    """Centres of the patches: x and y from -1 to 1 across the image."""
    y = (2 * torch.arange(rows, device=device) + 1) / rows - 1
    x = (2 * torch.arange(columns, device=device) + 1) / columns - 1
    return torch.cartesian_prod(y, x).flip(-1)[None, None]


def _window(
    h: int, w: int, radius: int, device: torch.device
) -> tuple[Int[Tensor, "1 n k"], Bool[Tensor, "n k"]]:
    """Flat index of every cell in the window around every cell, and whether it lies inside the map."""
    offsets = torch.arange(-radius, radius + 1, device=device)
    rows = torch.arange(h, device=device)[:, None, None, None] + offsets[:, None]
    columns = torch.arange(w, device=device)[:, None, None] + offsets
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    index = rows.clamp(0, h - 1) * w + columns.clamp(0, w - 1)
    return index.reshape(1, h * w, -1), inside.reshape(h * w, -1)
