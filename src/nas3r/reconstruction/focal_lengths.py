"""Focal lengths that are known before anything is predicted: from the user, or from the photos' EXIF data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
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
        guessed: Of which views nothing is told, and `matrices` hold a guess [v]; None for no view.
    """

    matrices: Float[Tensor, "1 v 3 3"] | None
    origin: FocalOrigin
    notes: tuple[str, ...] = ()
    guessed: Bool[np.ndarray, "v"] | None = None

    def of(self, views: Sequence[int]) -> "KnownIntrinsics":
        """What is told of some of the views."""
        if self.matrices is None:
            return self
        some = list(views)
        guessed = None if self.guessed is None else self.guessed[some]
        return replace(self, matrices=self.matrices[:, some], guessed=guessed)

    def focal(self, count: int) -> Float[np.ndarray, "v"]:
        """Told focal lengths of the first views, in units of the image's width; NaN where nothing is told."""
        focal = np.full(count, np.nan)
        if self.matrices is not None:
            told = self.matrices[0, :count, 0, 0].double().numpy()
            focal[: len(told)] = told
        if self.guessed is not None:
            focal[: len(self.guessed)][self.guessed[:count]] = np.nan
        return focal


def known_intrinsics(
    model: NAS3R, views: Sequence[View], focal_35mm: float | None, *, ignore_exif: bool = False
) -> KnownIntrinsics:
    """Intrinsics from a focal length that holds for all views, or from what each view's EXIF data say.

    EXIF data are used if at least half of the views have them. A model is told all cameras or none: for views
    that have none, what the others have in the middle is a guess. What contradicts itself is not believed.

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
    if not silent:
        return KnownIntrinsics(_matrices(views, [f for f in focals if f is not None]), "exif", notes)
    some = f"{len(silent)} of {len(views)} pictures do not say their focal length ({silent[0].label})"
    if (shared := _of_the_others(views, focals)) is not None:
        notes += (f"{some}: taken to be that of the others, which have the same size",)
        return KnownIntrinsics(_matrices(views, [shared] * len(views)), "exif", notes)
    if model.config.needs_intrinsics:
        raise ValueError(
            f"{silent[0].label}: this model must be told the focal length, and the photo does not say it; "
            "give --focal-35mm"
        )
    told = [focal for focal in focals if focal is not None]
    if not told:
        return KnownIntrinsics(None, "predicted", notes)
    if len(told) < len(silent):
        return KnownIntrinsics(None, "predicted", (*notes, f"{some}: all are predicted"))
    guess = float(np.median(told))
    matrices = _matrices(views, [guess if focal is None else focal for focal in focals])
    notes += (f"{some}: theirs are found from the pictures, beginning with {guess:.0f} mm",)
    return KnownIntrinsics(matrices, "exif", notes, np.array([focal is None for focal in focals]))


def _doubts(views: Sequence[View]) -> Iterator[str]:
    if views:
        rest = f" (and {len(views) - 1} more)" if len(views) > 1 else ""
        yield (
            f"{views[0].label} {views[0].focal_doubt}{rest}: what EXIF says of the focal length is not "
            "believed; give --focal-35mm if you know it"
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
