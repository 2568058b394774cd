"""`LensGroups`: photos by lens and zoom, and how well the focal length of each is known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.geometry import Cameras
from nas3r.reconstruction.focal_lengths import ONE_LENS, FocalOrigin, KnownIntrinsics
from nas3r.reconstruction.photos import View

_SAME_LENS = 1.1  # factor between what is told and what is found
# Standard deviation of the logarithm of a focal length, by who says it: a guess, EXIF data (rounded, and of
# another focus distance), the user.
FOCAL_SPREAD: dict[FocalOrigin, float] = {"predicted": 0.3, "exif": 0.03, "given": 0.01}


@dataclass(frozen=True)
class LensGroups:
    """Photos by their lenses.

    Attributes:
        of_view: Lens of every photo, numbered from 0 [v].
        spread: Standard deviation of the logarithm of what is expected of their focal lengths, one each.
    """

    of_view: Int[np.ndarray, "v"]
    spread: tuple[float, ...]

    @staticmethod
    def of(views: Sequence[View], known: KnownIntrinsics) -> "LensGroups":
        """Photos whose told focal lengths are alike have one lens; others if size and camera are the same.

        Args:
            views: The photos.
            known: What was told of them first.
        """
        focal = known.focal(len(views))
        shortest = np.nanmin(focal) if np.isfinite(focal).any() else 1.0
        keys = [_key(view, float(told / shortest)) for view, told in zip(views, focal, strict=True)]
        names = list(dict.fromkeys(keys))
        of_view = np.array([names.index(key) for key in keys])
        spread = tuple(FOCAL_SPREAD[known.origin if key[0] else "predicted"] for key in names)
        return LensGroups(of_view, spread)

    @staticmethod
    def apart(count: int, origin: FocalOrigin) -> "LensGroups":
        """Every photo with a lens of its own."""
        return LensGroups(np.arange(count), (FOCAL_SPREAD[origin],) * count)

    def keep(self, views: Sequence[int]) -> "LensGroups":
        """Of some of the photos; lenses keep their order."""
        used, of_view = np.unique(self.of_view[list(views)], return_inverse=True)
        return LensGroups(of_view, tuple(self.spread[lens] for lens in used.tolist()))


def intrinsics_of_others(
    others: Sequence[View], told: KnownIntrinsics, views: Sequence[View], cameras: Cameras
) -> Float[Tensor, "t 3 3"]:
    """Normalised intrinsics of further photos: what is told, or those of a photo by the same camera.

    Args:
        others: The further photos.
        told: Of those.
        views: Photos whose cameras are known.
        cameras: Theirs, batch of one.

    Returns:
        NaN for photos of which neither is known.
    """
    focal = told.focal(len(others))
    found = torch.full((len(others), 3, 3), torch.nan)
    by_camera = {camera_of(view): i for i, view in reversed(list(enumerate(views)))}
    for i, other in enumerate(others):
        if math.isfinite(focal[i]):
            assert told.matrices is not None
            found[i] = told.matrices[0, i]
            # Points in the pictures know the focal length of a lens better than the file.
            near = (cameras.intrinsics[0, :, 0, 0] / focal[i]).log().abs()
            if near.min() < math.log(_SAME_LENS):
                found[i] = cameras.intrinsics[0, int(near.argmin())]
        elif camera_of(other) in by_camera:
            found[i] = cameras.intrinsics[0, by_camera[camera_of(other)]]
    return found


def _key(view: View, told: float) -> tuple[bool, object]:
    """Whether the focal length is told, and what is the same for photos of one lens."""
    if math.isfinite(told):
        return True, round(math.log(told) / math.log(ONE_LENS))
    return False, camera_of(view)


def camera_of(view: View) -> tuple[str | None, int, int]:
    """The same for photos of one camera that were held the same way."""
    return view.camera, view.resize.original_width, view.resize.original_height
