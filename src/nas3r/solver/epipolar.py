"""Distances of matches from their epipolar lines, in standard deviations, and their slopes.

With R and t the pose of a query view in its reference's frame, a point at depth d along the ray p is at
d R p + t there, so its match q lies on the line l = t x R p whatever the depth.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry.rotation import hat
from nas3r.solver.correspondences import Correspondences

LEAST_VARIANCE = 1e-10  # of a distance from a line; at the epipole line and distance vanish together


def epipolar_distances(
    pairs: Correspondences, rotation: Float[Tensor, "*b 3 3"], direction: Float[Tensor, "*b 3"]
) -> tuple[Float[Tensor, "*b n"], Float[Tensor, "*b n"], Float[Tensor, "*b n 3"]]:
    """Distances of matches from their epipolar lines in standard deviations, those deviations, the lines."""
    lines = _lines(pairs, rotation, direction)
    sigma = _sigma(pairs, lines)
    return (homogeneous(pairs.points) * lines).sum(-1) / sigma, sigma, lines


@dataclass(frozen=True)
class EpipolarSlopes:
    """Distances of matches from their epipolar lines, and what their derivatives are made of.

    By the line, which is t x R p, the derivative is `by_line` over `sigma`. What moves the line, each solver
    puts behind it: a rotation w after R moves it by t x (w x R p), a change d of the direction by d x R p.

    Attributes:
        distance: In standard deviations [*b, n].
        sigma: Those deviations.
        lines: [*b, n, 3].
        turned: R p [*b, n, 3].
        by_line: Derivatives of the distances by the lines, times the deviations [*b, n, 3]. The deviations
            change along with the lines: without that, wrong matches win.
    """

    distance: Float[Tensor, "*b n"]
    sigma: Float[Tensor, "*b n"]
    lines: Float[Tensor, "*b n 3"]
    turned: Float[Tensor, "*b n 3"]
    by_line: Float[Tensor, "*b n 3"]


def epipolar_slopes(
    pairs: Correspondences, rotation: Float[Tensor, "*b 3 3"], direction: Float[Tensor, "*b 3"]
) -> EpipolarSlopes:
    """Distances of matches from their epipolar lines, with their slopes; see `EpipolarSlopes`."""
    distance, sigma, lines = epipolar_distances(pairs, rotation, direction)
    toward = (pairs.covariances @ lines[..., :2, None])[..., 0] / sigma[..., None]
    by_line = homogeneous(pairs.points) - distance[..., None] * F.pad(toward, (0, 1))
    return EpipolarSlopes(distance, sigma, lines, pairs.rays @ rotation.mT, by_line)


def rotation_slopes(
    pull: Float[Tensor, "*b n 3"], turned: Float[Tensor, "*b n 3"], direction: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b n 3"]:
    """Derivative of pull . (t x R p) by a rotation after R: (R p) x (pull x t), with R p turned."""
    along = turned @ direction[..., None]
    return pull * along - direction[..., None, :] * (turned * pull).sum(-1, keepdim=True)


def homogeneous(matches: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n 3"]:
    """Points of the plane z = 1."""
    return F.pad(matches, (0, 1), value=1.0)


def _lines(pairs: Correspondences, rotation: Tensor, direction: Tensor) -> Float[Tensor, "*b n 3"]:
    return pairs.rays @ (hat(direction) @ rotation).mT


def _sigma(pairs: Correspondences, lines: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n"]:
    """Standard deviation of a match's distance from its line, before the line is normalised."""
    x, y, _ = lines.unbind(-1)
    c = pairs.covariances
    variance = x * x * c[..., 0, 0] + 2 * x * y * c[..., 0, 1] + y * y * c[..., 1, 1]
    return variance.clamp_min(LEAST_VARIANCE).sqrt()
