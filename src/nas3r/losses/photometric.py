"""The training signal: squared error plus a perceptual distance between rendering and photo."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.losses.lpips import load_lpips
from nas3r.losses.structural import structural_distance


@dataclass(frozen=True)
class PhotometricConfig:
    """MSE + gamma * perceptual distance.

    Attributes:
        perceptual: "lpips" (VGG16, needs a weights file), "ssim" (download-free: structural similarity and
            image gradients at several scales) or "none".
        gamma: Weight of the perceptual distance (published: 0.05 with LPIPS).
        lpips_weights: ImageNet VGG16 checkpoint; None reads the environment variable NAS3R_LPIPS_WEIGHTS.
        scales: Image scales of the "ssim" distance.
        pyramid_levels: The squared error is taken on an image pyramid of so many levels, each halving the
            size (1: the image alone).
        coarse_until: Coarse to fine: finer pyramid levels fade in one after the other until this fraction
            of the training; 0 uses all levels from the start.
    """

    perceptual: Literal["lpips", "ssim", "none"] = "none"
    gamma: float = 0.05
    lpips_weights: str | None = None
    scales: int = 3
    pyramid_levels: int = 1
    coarse_until: float = 0.0

    def __post_init__(self) -> None:
        if self.perceptual not in ("lpips", "ssim", "none"):
            raise ValueError(f"perceptual: expected lpips, ssim or none, got {self.perceptual!r}")
        if self.pyramid_levels < 1 or not 0 <= self.coarse_until <= 1:
            raise ValueError(
                f"expected pyramid_levels >= 1 and coarse_until in [0, 1], got {self.pyramid_levels} and "
                f"{self.coarse_until}"
            )


def image_psnr(
    rendered: Float[Tensor, "*n c h w"], photo: Float[Tensor, "*n c h w"], *, least_error: float = 1e-10
) -> Float[Tensor, "*n"]:
    """Peak signal-to-noise ratio of each image in dB, for values in [0, 1], to which both are clipped.

    Args:
        rendered: In the precision that the result is wanted in.
        photo: Likewise.
        least_error: Smaller squared errors count as this one; with 0 equal images are infinitely good.
    """
    error = ((rendered.clamp(0, 1) - photo.clamp(0, 1)) ** 2).mean((-3, -2, -1))
    return -10 * torch.log10(error.clamp_min(least_error))


def level_weights(levels: int, coarse_until: float, progress: float) -> list[float]:
    """Weights of the pyramid levels, finest first: the coarsest counts fully, the finer ones fade in."""
    if coarse_until == 0 or progress >= coarse_until:
        return [1.0] * levels
    shown = 1 + (levels - 1) * progress / coarse_until
    return [min(max(shown - (levels - 1 - level), 0.0), 1.0) for level in range(levels)]


def pyramid_mse(
    rendered: Float[Tensor, "n 3 h w"], photo: Float[Tensor, "n 3 h w"], weights: list[float]
) -> Float[Tensor, ""]:
    """Weighted mean over pyramid levels (finest first) of the mean squared error."""
    total = rendered.new_zeros(())
    for level, weight in enumerate(weights):
        if level > 0:
            rendered, photo = F.avg_pool2d(rendered, 2), F.avg_pool2d(photo, 2)
        if weight > 0:
            total = total + weight * F.mse_loss(rendered, photo)
    return total / sum(weights)


class PhotometricLoss(nn.Module):
    """The loss as a module, because LPIPS has (frozen) weights that move with the device."""

    def __init__(self, config: PhotometricConfig) -> None:
        super().__init__()
        self.config = config
        self.lpips = load_lpips(config.lpips_weights) if config.perceptual == "lpips" else None

    def forward(
        self, rendered: Float[Tensor, "b v 3 h w"], photo: Float[Tensor, "b v 3 h w"], progress: float = 1.0
    ) -> dict[str, Float[Tensor, ""]]:
        """Loss and its terms.

        Args:
            rendered: Renderings, not clipped.
            photo: What they should look like, in [0, 1].
            progress: Fraction of the training done, for coarse to fine.

        Returns:
            "loss" and its terms "mse" (of the full-size image) and, if used, "perceptual".

        Raises:
            ValueError: If shapes differ.
        """
        if rendered.shape != photo.shape:
            raise ValueError(
                f"photometric loss: rendered {list(rendered.shape)} against photo {list(photo.shape)}"
            )
        a, b = rendered.flatten(0, 1), photo.flatten(0, 1)
        mse = F.mse_loss(a, b)
        config = self.config
        if config.pyramid_levels > 1:
            weights = level_weights(config.pyramid_levels, config.coarse_until, progress)
            loss = pyramid_mse(a, b, weights)
        else:
            loss = mse
        terms = {"mse": mse.detach()}
        if config.perceptual != "none" and config.gamma > 0:
            perceptual = self._perceptual(a, b).mean()
            loss = loss + config.gamma * perceptual
            terms["perceptual"] = perceptual.detach()
        return {"loss": loss, **terms}

    def _perceptual(self, a: Tensor, b: Tensor) -> Float[Tensor, "n"]:
        if self.lpips is not None:
            return self.lpips(a, b)
        return structural_distance(a, b, scales=self.config.scales)
