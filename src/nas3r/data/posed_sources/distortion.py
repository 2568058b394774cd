"""Lens distortion, and its removal by resampling."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from nas3r.geometry.projection import camera_rays, pixel_grid

# Resampling blurs: displacements below this many pixels of the original image are left alone.
NEGLIGIBLE = 0.25


@dataclass(frozen=True)
class Distortion:
    """Lens distortion in OpenCV's parametrisation.

    Attributes:
        model: "brown" (radial, rational and tangential) or "fisheye" (Kannala and Brandt).
        coefficients: brown: k1, k2, p1, p2, k3, k4, k5, k6; fisheye: k1, k2, k3, k4. Missing ones are 0.
    """

    model: Literal["brown", "fisheye"]
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        limit = 8 if self.model == "brown" else 4
        if len(self.coefficients) > limit:
            raise ValueError(
                f"{self.model} distortion: at most {limit} coefficients, got {len(self.coefficients)}"
            )

    @property
    def is_zero(self) -> bool:
        """Whether there is none. A fisheye lens with zero coefficients still bends (it is equidistant)."""
        return self.model == "brown" and not any(self.coefficients)

    def apply(self, rays: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        """Distorted positions of rays (x, y, 1), on the plane z = 1."""
        return self._brown(rays) if self.model == "brown" else self._fisheye(rays)

    def _brown(self, rays: Tensor) -> Tensor:
        """OpenCV documentation, "Camera Calibration and 3D Reconstruction", the rational model."""
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.coefficients, *[0.0] * (8 - len(self.coefficients)))
        x, y = rays.unbind(-1)
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        return torch.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            ],
            -1,
        )

    def _fisheye(self, rays: Tensor) -> Tensor:
        """Kannala and Brandt, "A generic camera model", PAMI 2006, as in OpenCV's `fisheye` module."""
        k1, k2, k3, k4 = (*self.coefficients, *[0.0] * (4 - len(self.coefficients)))
        r = rays.norm(dim=-1, keepdim=True)
        theta = torch.atan(r)
        t2 = theta * theta
        bent = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
        return rays * torch.where(r > 1e-8, bent / r.clamp_min(1e-8), torch.ones_like(r))


def distorted_grid(
    distortion: Distortion,
    intrinsics: Float[Tensor, "3 3"],
    new_intrinsics: Float[Tensor, "3 3"],
    xy: Float[Tensor, "*b 2"],
) -> Float[Tensor, "*b 2"]:
    """Where points of the undistorted image lie in the distorted one; all normalised coordinates."""
    flat = xy.reshape(-1, 2)
    bent = distortion.apply(camera_rays(new_intrinsics, flat)[:, :2])
    homogeneous = torch.cat([bent, torch.ones_like(bent[:, :1])], -1) @ intrinsics.mT
    return homogeneous[:, :2].reshape(xy.shape)


def _border(count: int = 64) -> Float[Tensor, "n 2"]:
    t = torch.linspace(0, 1, count, dtype=torch.float64)
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    sides = ((t, zero), (t, one), (zero, t), (one, t))
    return torch.cat([torch.stack(side, -1) for side in sides])


def largest_displacement(
    distortion: Distortion, intrinsics: Float[Tensor, "3 3"], width: int, height: int
) -> float:
    """How far, in pixels, the distortion moves any pixel of an image of this size."""
    xy = torch.cat([_border(), pixel_grid(16, 16, dtype=torch.float64).reshape(-1, 2)])
    moved = distorted_grid(distortion, intrinsics.double(), intrinsics.double(), xy)
    return float(((moved - xy) * moved.new_tensor([width, height])).norm(dim=-1).max())


def undistorted_intrinsics(distortion: Distortion, intrinsics: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """Intrinsics (normalised) of an undistorted image that the distorted one fills without holes.

    The focal length grows by the smallest factor that achieves it; the principal point stays.

    Raises:
        ValueError: If no factor up to 4 does: the coefficients are no sensible lens.
    """
    intrinsics = intrinsics.double()

    def zoomed(factor: float) -> Tensor:
        out = intrinsics.clone()
        out[0, 0] *= factor
        out[1, 1] *= factor
        out[0, 1] *= factor
        return out

    def fills(factor: float) -> bool:
        xy = distorted_grid(distortion, intrinsics, zoomed(factor), _border())
        return bool(((xy >= -1e-9) & (xy <= 1 + 1e-9)).all())

    if fills(1.0):
        return intrinsics
    low, high = 1.0, 4.0
    if not fills(high):
        raise ValueError(f"lens distortion {distortion} does not fit its camera")
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if fills(middle) else (middle, high)
    return zoomed(high)


@dataclass(frozen=True)
class Straightening:
    """How images of one distorted camera become those of a pinhole.

    Attributes:
        distortion: Of the lens.
        intrinsics: Of the distorted camera, normalised.
        new_intrinsics: Of the pinhole, normalised.
        grid: Where the pinhole's pixels lie in the distorted image, in [-1, 1].
    """

    distortion: Distortion
    intrinsics: Float[Tensor, "3 3"]
    new_intrinsics: Float[Tensor, "3 3"]
    grid: Float[Tensor, "h w 2"]

    def apply(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The image the pinhole would have taken (bilinear)."""
        pixels = torch.tensor(image).permute(2, 0, 1).float()
        straight = F.grid_sample(pixels[None], self.grid[None], padding_mode="border", align_corners=False)[0]
        return straight.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()

    def source(self, xy: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        """Where points of the pinhole image lie in the distorted one; normalised coordinates."""
        return distorted_grid(self.distortion, self.intrinsics, self.new_intrinsics, xy)


def straightening(
    distortion: Distortion | None, intrinsics: Float[Tensor, "3 3"], width: int, height: int
) -> Straightening | None:
    """What removes a distortion, None if it moves no pixel by more than `NEGLIGIBLE`.

    Kept for the last few cameras: the images of a scene mostly share one.

    Args:
        distortion: Of the lens.
        intrinsics: Normalised.
        width: Of the images in pixels.
        height: Of the images in pixels.
    """
    if distortion is None:
        return None
    return _straightening(distortion, tuple(intrinsics.double().flatten().tolist()), width, height)


@lru_cache(maxsize=2)
def _straightening(
    distortion: Distortion, flat: tuple[float, ...], width: int, height: int
) -> Straightening | None:
    intrinsics = torch.tensor(flat, dtype=torch.float64).reshape(3, 3)
    if largest_displacement(distortion, intrinsics, width, height) < NEGLIGIBLE:
        return None
    new = undistorted_intrinsics(distortion, intrinsics)
    xy = pixel_grid(height, width, dtype=torch.float64)
    grid = 2 * distorted_grid(distortion, intrinsics, new, xy) - 1
    return Straightening(distortion, intrinsics, new, grid.float())


def brown(coefficients: Sequence[float]) -> Distortion | None:
    """Brown distortion, None if all coefficients are zero."""
    distortion = Distortion("brown", tuple(float(c) for c in coefficients))
    return None if distortion.is_zero else distortion
