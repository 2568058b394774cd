"""What the pose task compares a model with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.posed import PosedScene, PosedViews
from nas3r.evaluation.baselines.copying import identity_poses
from nas3r.evaluation.baselines.learnt import XFeatMatcher
from nas3r.evaluation.baselines.mapping import map_incrementally
from nas3r.evaluation.baselines.two_view import SiftMatcher, essential_pose, guessed_intrinsics
from nas3r.evaluation.pose import relative_poses
from nas3r.evaluation.protocols import ViewSet

_NAMES = {
    "identity": "identity",
    "sift": "SIFT + MAGSAC, true K",
    "sift-guess": "SIFT + MAGSAC, guessed focal",
    "sift-full": "SIFT + MAGSAC, true K, full size",
    "xfeat-lighterglue": "XFeat + LighterGlue + MAGSAC, true K",
    "xfeat-lighterglue-full": "XFeat + LighterGlue + MAGSAC, true K, full size",
    "colmap": "COLMAP mapper",
    "colmap-full": "COLMAP mapper, full size",
}
BASELINES = tuple(_NAMES)
_ENLARGED = 4  # times: features that learnt on large images find little in small ones


class Matcher(Protocol):
    """Matches between pairs of some images."""

    height: int
    width: int

    def matches(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixel positions [n, 2] in both images."""
        ...


@dataclass(frozen=True)
class Estimate:
    """What a method found.

    Attributes:
        relative: Relative pose of each pair of views; NaN where there is none.
        poses: Camera-to-world poses of all views, for methods that give them.
        intrinsics: Normalised intrinsics of all views, for methods that find or guess them.
    """

    relative: Float[Tensor, "p 4 4"]
    poses: Float[Tensor, "v 4 4"] | None = None
    intrinsics: Float[Tensor, "v 3 3"] | None = None

    @classmethod
    def of_poses(
        cls,
        poses: Float[Tensor, "v 4 4"],
        pairs: Sequence[tuple[int, int]],
        intrinsics: Float[Tensor, "v 3 3"] | None = None,
    ) -> "Estimate":
        """An estimate from poses of all views."""
        return cls(relative_poses(poses, pairs), poses, intrinsics)


def baseline_estimates(
    names: Sequence[str],
    scene: PosedScene,
    context: PosedViews,
    view_set: ViewSet,
    pairs: Sequence[tuple[int, int]],
) -> list[tuple[str, Estimate]]:
    """Estimates of the named baselines; those that do not apply are left out.

    The COLMAP mapper needs more than two views, "-full" variants a scene that tells its full size.

    Args:
        names: Of `BASELINES`.
        scene: To read the views at full size.
        context: The context views at the model's size.
        view_set: Which views they are.
        pairs: Pairs of context views.
    """
    sizes = {"": context}
    full = getattr(scene, "full_size", None)
    if full is not None and any(name.endswith("-full") for name in names):
        sizes["-full"] = scene.read(view_set.context, min(full), min(full))
    matchers: dict[str, Matcher] = {}
    out = []
    for name in names:
        kind, variant = name.split("-")[0], "-full" if name.endswith("-full") else ""
        if variant not in sizes:
            continue
        views = sizes[variant]
        if kind == "identity":
            estimate = Estimate.of_poses(identity_poses(len(views.images)), pairs)
        elif kind == "colmap":
            if len(views.images) < 3:
                continue
            poses, intrinsics = map_incrementally(views.images)
            estimate = Estimate.of_poses(poses, pairs, intrinsics)
        else:
            if kind + variant not in matchers:
                matchers[kind + variant] = _matcher(kind, views.images, full=bool(variant))
            estimate = _two_view(matchers[kind + variant], views, pairs, guess=name == "sift-guess")
        out.append((_NAMES[name], estimate))
    return out


def _matcher(kind: str, images: Float[Tensor, "v 3 h w"], *, full: bool) -> Matcher:
    return SiftMatcher(images) if kind == "sift" else XFeatMatcher(images, enlarged=1 if full else _ENLARGED)


def _two_view(
    matcher: Matcher, views: PosedViews, pairs: Sequence[tuple[int, int]], *, guess: bool
) -> Estimate:
    height, width = matcher.height, matcher.width
    intrinsics = (
        guessed_intrinsics(len(views.images), height, width) if guess else views.cameras.intrinsics[0]
    )
    relative = [essential_pose(matcher.matches(i, j), intrinsics[[i, j]], height, width) for i, j in pairs]
    return Estimate(torch.stack(relative), intrinsics=intrinsics if guess else None)
