"""Focal lengths that are told, held against what the pictures say."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.matching import ViewMatcher
from nas3r.solver import assumed_intrinsics, solve_context

_DIRECTIONS = 128  # of the translation, tried for each pair


@dataclass(frozen=True)
class Explained:
    """How well matches are explained.

    Attributes:
        focal: Geometric mean of the normalised focal lengths, in units of the image's width.
        cost: Mean robust distance of matches from their epipolar lines, 0 to 1.
    """

    focal: float
    cost: float


@torch.no_grad()
def explained(
    matcher: ViewMatcher, images: Float[Tensor, "1 v 3 h w"], told: Float[Tensor, "1 v 3 3"] | None
) -> Explained:
    """Solves for poses with told intrinsics, or with a focal length that matches say.

    Args:
        matcher: Of the network.
        images: Three views or more: two hardly say a focal length.
        told: Their intrinsics, if they are told.
    """
    intrinsics = assumed_intrinsics(images) if told is None else told
    solution = solve_context(
        matcher,
        matcher.features(images),
        intrinsics,
        calibrate=told is None,
        any_pair=True,
        directions=_DIRECTIONS,
    )
    focal = float(solution.intrinsics[..., 0, 0].log().mean().exp())
    return Explained(focal, float(solution.pairs.pose.cost.mean()))
