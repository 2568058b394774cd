"""Focal lengths that are known before anything is predicted: from the user, or from the photos' EXIF data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.models import NAS3R
from nas3r.reconstruction.photos import View, focal_pixels

ONE_LENS = 1.02  # factor between what the photos of one lens tell

FocalOrigin = Literal["predicted", "exif", "given"]


@dataclass(frozen=True)
class KnownIntrinsics:
    """What a model is told of the cameras.

    Attributes:
        matrices: Normalised intrinsics with a centred principal point [1, v, 3, 3]; None for nothing.
        origin: Where the focal lengths come from.
        notes: Sentences about what could not be used.
    """

    matrices: Float[Tensor, "1 v 3 3"] | None
    origin: FocalOrigin
    notes: tuple[str, ...] = ()

    def of(self, views: Sequence[int]) -> "KnownIntrinsics":
        """What is told of some of the views."""
        return self if self.matrices is None else replace(self, matrices=self.matrices[:, list(views)])


def known_intrinsics(
    model: NAS3R, views: Sequence[View], focal_35mm: float | None, *, ignore_exif: bool = False
) -> KnownIntrinsics:
    """Intrinsics from a focal length that holds for all views, or from what each view's EXIF data say.

    EXIF data are used if every view has them, or the few that have none look like the others: a model is told
    all cameras or none. What contradicts itself is not believed.

    Args:
        model: What cannot be told to it is not looked for.
        views: The photos.
        focal_35mm: Focal length in mm of full frame.
        ignore_exif: Does not look at EXIF data.

    Raises:
        ValueError: If the model must be told the focal length and nothing says it.
    """
    if not model.config.takes_intrinsics:
        unused = ("this model cannot be told the focal length; it is predicted",)
        return KnownIntrinsics(None, "predicted", () if focal_35mm is None else unused)
    if focal_35mm is not None:
        return KnownIntrinsics(_matrices(views, [focal_35mm] * len(views)), "given")
    focals = [None if ignore_exif else view.exif_focal_35mm for view in views]
    doubted = [view for view in views if view.focal_doubt is not None and not ignore_exif]
    notes = tuple(_doubts(doubted))
    silent = [view for view, focal in zip(views, focals, strict=True) if focal is None]
    if silent and not doubted and (shared := _of_the_others(views, focals)) is not None:
        names = f"{len(silent)} of {len(views)} pictures do not say their focal length ({silent[0].label})"
        notes += (f"{names}: taken to be that of the others, which have the same size",)
        return KnownIntrinsics(_matrices(views, [shared] * len(views)), "exif", notes)
    if not silent:
        return KnownIntrinsics(_matrices(views, [f for f in focals if f is not None]), "exif", notes)
    if model.config.needs_intrinsics:
        raise ValueError(
            f"{silent[0].label}: this model must be told the focal length, and the photo does not say it; "
            "give --focal-35mm"
        )
    if len(silent) == len(views) or ignore_exif:
        return KnownIntrinsics(None, "predicted", notes)
    some = f"{len(silent)} of {len(views)} pictures do not say their focal length ({silent[0].label})"
    return KnownIntrinsics(None, "predicted", notes or (f"{some}: all are predicted",))


def _doubts(views: Sequence[View]) -> Iterator[str]:
    if views:
        rest = f" (and {len(views) - 1} more)" if len(views) > 1 else ""
        yield (
            f"{views[0].label} {views[0].focal_doubt}{rest}: focal lengths in EXIF are not believed, and are "
            "predicted; give --focal-35mm if you know them"
        )


def _of_the_others(views: Sequence[View], focals: Sequence[float | None]) -> float | None:
    """The focal length that all photos tell that tell any, if the silent ones have their size too."""
    told = [focal for focal in focals if focal is not None]
    sizes = {tuple(sorted((v.resize.original_width, v.resize.original_height))) for v in views}
    if len(told) < max(2, len(views) / 2) or len(sizes) > 1 or max(told) > min(told) * ONE_LENS:
        return None
    return sum(told) / len(told)


def _matrices(views: Sequence[View], focals_35mm: Sequence[float]) -> Float[Tensor, "1 v 3 3"]:
    """Normalised to the working size; the optical axis meets the middle of the photo."""
    rows = []
    for view, focal in zip(views, focals_35mm, strict=True):
        resize, pixels = view.resize, focal_pixels(view, focal)
        x, y = resize.original_width / 2, resize.original_height / 2
        k = np.array([[pixels, 0, x], [0, pixels, y], [0, 0, 1]])
        rows.append(torch.from_numpy(resize.apply_intrinsics(k)).float())
    return torch.stack(rows)[None]
