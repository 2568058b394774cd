"""What the Gaussian file formats share: a scene as arrays, encodings of opacity, scale and colour."""

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nas3r.gaussians import SH_C0, Gaussians

logger = logging.getLogger(__name__)

# Opacities are kept this far from 0 and 1 so that their logits are finite (+-13.8), and scales above
# this length so that their logarithms are (-46). Both are far below what 8-bit images can show.
_OPACITY_MARGIN = 1e-6
_SMALLEST_SCALE = 1e-20


@dataclass(frozen=True)
class SceneArrays:
    """One set of Gaussians as float64 arrays, values activated, quaternions wxyz of unit norm."""

    means: Float[np.ndarray, "n 3"]
    quats: Float[np.ndarray, "n 4"]
    scales: Float[np.ndarray, "n 3"]
    opacities: Float[np.ndarray, "n"]
    sh: Float[np.ndarray, "n k 3"]


def scene_arrays(gaussians: Gaussians, max_sh_degree: int) -> SceneArrays:
    """The only scene of a batch as arrays, spherical harmonics cut to a degree.

    Raises:
        ValueError: If the batch does not hold exactly one scene, or a value is not finite.
    """
    if gaussians.means.shape[0] != 1:
        raise ValueError(f"gaussians: a file holds one scene, got a batch of {gaussians.means.shape[0]}")
    values = {
        name: getattr(gaussians, name)[0].detach().cpu().double().numpy()
        for name in ("means", "quats", "scales", "opacities", "sh")
    }
    for name, value in values.items():
        if not np.isfinite(value).all():
            bad = (~np.isfinite(value.reshape(len(value), -1)).all(1)).sum()
            raise ValueError(f"gaussians: {name} of {bad} of {len(value)} Gaussians is not finite")
    if gaussians.sh_degree > max_sh_degree:
        logger.info("spherical harmonics above degree %d are left out of the file", max_sh_degree)
    values["sh"] = values["sh"][:, : (max_sh_degree + 1) ** 2]
    norm = np.linalg.norm(values["quats"], axis=1, keepdims=True)
    values["quats"] = np.where(norm > 0, values["quats"] / np.where(norm > 0, norm, 1), [1.0, 0, 0, 0])
    return SceneArrays(**values)


def logit_opacities(opacities: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Inverse sigmoid, kept finite."""
    o = opacities.clip(_OPACITY_MARGIN, 1 - _OPACITY_MARGIN)
    return np.log(o / (1 - o))


def log_scales(scales: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Natural logarithm, kept finite."""
    return np.log(scales.clip(_SMALLEST_SCALE))


def base_colors(sh: Float[np.ndarray, "n k 3"]) -> Float[np.ndarray, "n 3"]:
    """Colours of the view-independent coefficient; not clipped to [0, 1]."""
    return 0.5 + SH_C0 * sh[:, 0]


def to_byte(values: np.ndarray) -> np.ndarray:
    """Rounds to the nearest of 0..255."""
    return values.round().clip(0, 255).astype(np.uint8)
