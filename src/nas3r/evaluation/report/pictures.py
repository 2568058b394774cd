"""Pictures of a report: thumbnails on disk, and colours for numbers."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.io.images import save_image

# A perceptually ordered ramp from dark blue over green to yellow (a few points of viridis, interpolated).
_RAMP = torch.tensor(
    [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], dtype=torch.float32
)
_SMALLEST_SIDE = 128  # pictures smaller than this are enlarged by whole factors, unsmoothed


@dataclass
class Album:
    """Pictures of one view set, in rows; does nothing when disabled.

    Attributes:
        folder: Where the files go.
        stem: Start of their names.
        enabled: Whether to write anything.
        rows: What was added: rows of (caption, file name).
    """

    folder: Path
    stem: str
    enabled: bool = True
    rows: list[list[tuple[str, str]]] = field(default_factory=list)

    def add_row(self, *pictures: tuple[str, Float[Tensor, "3 h w"]]) -> None:
        """Writes a row of pictures, each a caption and an image in [0, 1]."""
        if not self.enabled:
            return
        row = []
        for caption, image in pictures:
            name = f"{self.stem}-{len(self.rows):02d}-{len(row)}.png"
            save_image(self.folder / name, _pixels(image))
            row.append((caption, name))
        self.rows.append(row)


def _pixels(image: Float[Tensor, "3 h w"]) -> np.ndarray:
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().byte()
    factor = max(_SMALLEST_SIDE // min(pixels.shape[-2:]), 1)
    pixels = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def colourise(values: Float[Tensor, "h w"], low: float, high: float) -> Float[Tensor, "3 h w"]:
    """Values on the ramp from `low` (dark) to `high` (bright); not finite ones are grey."""
    known = values.isfinite()
    share = ((values - low) / max(high - low, 1e-12)).clamp(0, 1)
    place = torch.where(known, share, torch.zeros_like(share)) * (len(_RAMP) - 1)
    index = place.long().clamp_max(len(_RAMP) - 2)
    fraction = (place - index)[..., None]
    colour = (_RAMP[index] * (1 - fraction) + _RAMP[index + 1] * fraction) / 255
    colour = torch.where(known[..., None], colour, torch.full_like(colour, 0.6))
    return colour.permute(2, 0, 1)


def error_picture(predicted: Float[Tensor, "3 h w"], true: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Mean absolute difference of the channels; bright is 0.5 or more."""
    return colourise((predicted.clamp(0, 1) - true).abs().mean(0), 0.0, 0.5)


def depth_picture(depth: Float[Tensor, "h w"], low: float, high: float) -> Float[Tensor, "3 h w"]:
    """Depth on a logarithmic scale, near bright, far dark; unknown grey."""
    log = torch.where(depth > 0, depth.clamp_min(1e-12).log(), torch.full_like(depth, torch.nan))
    return colourise(-log, -float(np.log(high)), -float(np.log(low)))
