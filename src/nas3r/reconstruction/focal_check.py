"""Focal lengths that are told, held against what the pictures say.

Matches of three views and more say a focal length, though not well. One that is far from it and explains the
matches clearly worse is wrong: a program wrote 177 mm where 28 was meant, say, and nothing else in the file
contradicts that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.matching import ViewMatcher
from nas3r.models import NAS3R
from nas3r.reconstruction.exif_focal import FULL_FRAME
from nas3r.reconstruction.focal_lengths import KnownIntrinsics
from nas3r.reconstruction.photos import View
from nas3r.solver import assumed_intrinsics, solve_context

_DIRECTIONS = 128  # of the translation, tried for each pair
_LEAST_VIEWS, _MOST_VIEWS = 3, 4  # two hardly say a focal length; more take longer
# Chosen so that no true focal length is questioned on half of the scenes (benchmarks/told_focal.py): a factor
# from what matches say, and one between the costs of explaining them.
FAR_OFF = 3.0
WORSE, CLEARLY_WORSE = 1.05, 1.2
_TELLS = {"exif": "EXIF data tell", "given": "was given"}


def against_pictures(
    model: NAS3R, views: Sequence[View], images: Float[Tensor, "v 3 h w"], known: KnownIntrinsics
) -> KnownIntrinsics:
    """Told focal lengths with a sentence if pictures contradict them; without them if they do so clearly.

    What the user gives is questioned and kept.

    Args:
        model: The network; what it matches views with asks the pictures.
        views: Photos of the context.
        images: Of those.
        known: What is told; of the context first.
    """
    matcher = model.poses.view_matcher
    if known.matrices is None or matcher is None or len(views) < _LEAST_VIEWS:
        return known
    sure = np.flatnonzero(np.isfinite(known.focal(len(views))))
    if len(sure) < _LEAST_VIEWS:
        return known
    some = sure[np.linspace(0, len(sure) - 1, min(len(sure), _MOST_VIEWS)).round().astype(int)].tolist()
    device = next(model.parameters()).device
    asked, matrices = images[None, some].to(device), known.matrices[:, some].to(device)
    by_told, by_matches = explained(matcher, asked, matrices), explained(matcher, asked, None)
    factor, ratio = by_told.focal / by_matches.focal, by_told.cost / max(by_matches.cost, 1e-9)
    if not contradicted(factor, ratio):
        return known
    told = float(np.mean([_focal_35mm(views[i], known.matrices[0, i]) for i in some]))
    sentence = (
        f"the focal length of {told:.0f} mm that {_TELLS[known.origin]} does not fit what the pictures show, "
        f"about {told / factor:.0f} mm does"
    )
    if known.origin == "given" or model.config.needs_intrinsics or ratio < CLEARLY_WORSE:
        advice = "it is used; check --focal-35mm, or see what --ignore-exif gives"
        return replace(known, notes=(*known.notes, f"{sentence}: {advice}"))
    advice = "it is predicted instead; give --focal-35mm if you know it"
    return KnownIntrinsics(None, "predicted", (*known.notes, f"{sentence}: {advice}"))


def contradicted(factor: float, ratio: float) -> bool:
    """Whether pictures contradict a focal length.

    Args:
        factor: Between it and the one that matches say.
        ratio: Between the costs of explaining the matches.
    """
    return not 1 / FAR_OFF < factor < FAR_OFF and ratio > WORSE


def _focal_35mm(view: View, intrinsics: Float[Tensor, "3 3"]) -> float:
    """In mm of full frame."""
    resize = view.resize
    pixels = resize.undo_intrinsics(intrinsics.double().numpy())[0, 0]
    return float(pixels * FULL_FRAME / np.hypot(resize.original_width, resize.original_height))


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
