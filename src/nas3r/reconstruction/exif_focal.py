"""The focal length that a photo's EXIF data tell, and whether they can be believed."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas3r.io.images import read_exif

FULL_FRAME = 43.2666  # mm, diagonal of 36 x 24 mm film

_MAKE, _MODEL = 271, 272
# EXIF tags: the block of camera settings, and in it FocalLengthIn35mmFilm, FocalLength, DigitalZoomRatio, the
# size of the picture as it was taken, and the pixels per unit of length in the focal plane.
_EXIF_IFD, _FOCAL_35MM, _FOCAL, _ZOOM = 0x8769, 41989, 37386, 41988
_WIDTH, _HEIGHT = 40962, 40963
_X_RESOLUTION, _Y_RESOLUTION, _UNIT = 41486, 41487, 41488
_UNITS_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}

# Diagonals in mm of the smallest sensors in phones (1/6 inch has 3.0) and of the largest in cameras (medium
# format has 67). A focal length that needs another one is a mistake of the program that wrote it.
_SENSORS = (2.5, 70.0)
_SAME_SHAPE = 0.02  # of the aspect ratio: a crop changes it by more, rounding of thumbnails by less
_AGREE = 1.25  # factor between two ways to tell it, beyond which one is wrong


@dataclass(frozen=True)
class ToldFocal:
    """What EXIF data say.

    Attributes:
        mm: Focal length in mm of full frame; None if it is not told, or cannot be believed.
        doubt: Why what is told is not believed, as the end of a sentence about the photo; None if it is.
    """

    mm: float | None
    doubt: str | None = None


def told_focal(file: Path, width: int, height: int) -> ToldFocal:
    """The focal length that a photo of this size tells, checked against its other EXIF data.

    Args:
        file: The photo.
        width: In pixels, upright or not.
        height: Ditto.
    """
    try:
        settings = read_exif(file).get_ifd(_EXIF_IFD)
    except Exception:  # broken metadata raises nearly anything and must not cost the photo
        return ToldFocal(None)
    taken = sorted((_number(settings, _WIDTH), _number(settings, _HEIGHT)))
    equivalent, by_plane = _number(settings, _FOCAL_35MM), _by_focal_plane(settings)
    told = equivalent if 1 <= equivalent <= 3000 else by_plane
    if not told or not 1 <= told <= 3000:
        return ToldFocal(None)
    if taken[0] > 0 and abs(taken[1] / taken[0] * min(width, height) / max(width, height) - 1) > _SAME_SHAPE:
        size = f"{taken[1]:.0f} x {taken[0]:.0f}"
        return ToldFocal(None, f"was cropped since it was taken with {size} pixels")
    sensor = _number(settings, _FOCAL) * FULL_FRAME / told * max(1.0, _number(settings, _ZOOM))
    if sensor and not _SENSORS[0] <= sensor <= _SENSORS[1]:
        return ToldFocal(None, f"tells {told:.0f} mm, which needs a sensor of {sensor:.1f} mm")
    if told == equivalent and by_plane and not 1 / _AGREE < by_plane / equivalent < _AGREE:
        return ToldFocal(None, f"tells {equivalent:.0f} mm, and {by_plane:.0f} mm by its sensor")
    return ToldFocal(told)


def told_camera(file: Path) -> str | None:
    """Maker and model of the camera; None if the photo does not tell."""
    try:
        exif = read_exif(file)
        names = [str(exif.get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL)]
    except Exception:  # as above
        return None
    return " ".join(filter(None, names)) or None


def _by_focal_plane(settings: Any) -> float:
    """From the focal length in mm and the pixels per unit in the focal plane; 0 if these are not told."""
    unit = _UNITS_MM.get(int(_number(settings, _UNIT)) or 2, 0.0)
    x, y = _number(settings, _X_RESOLUTION), _number(settings, _Y_RESOLUTION)
    width, height = _number(settings, _WIDTH), _number(settings, _HEIGHT)
    if not unit or min(x, width, height) <= 0:
        return 0.0
    diagonal = math.hypot(width / x, height / (y or x)) * unit
    return _number(settings, _FOCAL) * FULL_FRAME / diagonal if diagonal > 0 else 0.0


def _number(settings: Any, tag: int) -> float:
    """A finite number >= 0; 0 for everything else."""
    try:
        value = float(settings.get(tag, 0))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0
