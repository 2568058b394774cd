"""Lenses that bend straight lines: which of them do, so far as what was seen says it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from nas3r.adjustment.bundle import State, Uncertainty, residuals
from nas3r.adjustment.tracks import Tracks
from nas3r.adjustment.triangulation import bent_places

_FAR_OUT = 0.95  # of the observations of a lens lie nearer to its axis


@dataclass(frozen=True)
class BendConfig:
    """When a lens is said to bend straight lines.

    Attributes:
        spread: Standard deviation of the first radial coefficient k1 around none, before points say it; 0 for
            lenses that never bend.
        least: By how much observations far out must be moved, in pixels of an image whose longer side is 640.
        sure: How many standard deviations k1 must be from none.
        better: How many times as well observations must agree then.
    """

    spread: float = 0.1
    least: float = 1.0
    sure: float = 5.0
    better: float = 1.005


def bending(
    state: State, tracks: Tracks, doubt: Uncertainty, pixel: float, config: BendConfig
) -> Bool[np.ndarray, "l"]:
    """Which lenses bend straight lines, so far as observations say.

    Args:
        state: Adjusted, with distortions.
        tracks: What was seen.
        doubt: Of the state.
        pixel: Pixels of the images for one of an image whose longer side is 640.
        config: From when on.
    """
    lenses = state.lenses
    lens = lenses.of_view[tracks.view]
    away = np.linalg.norm(bent_places(state, tracks), axis=1)
    sure = np.abs(lenses.distortion) > config.sure * doubt.distortion
    for i in np.flatnonzero(sure).tolist():
        far = np.quantile(away[lens == i], _FAR_OUT) if (lens == i).any() else 0.0
        sure[i] = lenses.focal[i] * abs(lenses.distortion[i]) * far**3 > config.least * pixel
    return sure


def agreement(state: State, tracks: Tracks, pixel: float) -> float:
    """How many observations agree with a state, each as far as it does.

    Args:
        state: With points.
        tracks: Of them.
        pixel: Pixels of the images for one of an image whose longer side is 640.
    """
    return float((1 / (1 + np.square(residuals(state, tracks) / pixel))).sum())
