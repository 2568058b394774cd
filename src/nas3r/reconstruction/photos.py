"""`View`: one photo of a reconstruction, its original pixels, its name in exports, what its camera noted."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from nas3r.data.posed_sources.distortion import Straightening
from nas3r.io.images import Resize, is_plain, load_image, save_image
from nas3r.reconstruction.exif_focal import FULL_FRAME
from nas3r.reconstruction.inputs import Pixels

# What other tools read the way we do, if it is upright and opaque.
_PLAIN_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
# File systems take 255 bytes; other names are made from these, temporary ones too.
_LONGEST_STEM = 120
# Lossless formats stay lossless.
_LOSSLESS = (".png", ".bmp", ".ppm", ".pgm", ".pnm", ".gif")


@dataclass(frozen=True)
class View:
    """One photo of the reconstruction.

    Attributes:
        label: What messages call it.
        name: Its file name in exports: unique, without characters that other tools stumble over.
        file: The photo's own file, if it has one.
        pixels: The photo itself where it has no file (video frames, arrays).
        resize: How it was brought to the working size.
        sharpness: See `nas3r.reconstruction.motion.sharpness`.
        exif_focal_35mm: What the camera itself says, in mm of full frame; None if it does not.
        focal_doubt: Why what it says is not believed, as the end of a sentence about it.
        origin: Where it comes from, for the record; None for what was in memory only.
        camera: Maker and model of the camera, if the photo tells.
        straightening: What makes the photo in the file straight, where the lens bends straight lines.
    """

    label: str
    name: str
    file: Path | None
    pixels: Pixels | None = field(repr=False)
    resize: Resize
    sharpness: float
    exif_focal_35mm: float | None = None
    origin: str | None = None
    focal_doubt: str | None = None
    camera: str | None = None
    straightening: Straightening | None = field(default=None, repr=False)

    def load(self) -> Pixels:
        """The photo at its original size, straight."""
        if self.pixels is not None:
            return self.pixels
        if self.file is None:
            raise ValueError(f"{self.label}: the original photo is not at hand")
        image = load_image(self.file)
        return image if self.straightening is None else self.straightening.apply(image)

    def export(self, folder: Path) -> None:
        """Writes the upright, straight photo; a file that can be used as it is, is copied."""
        path = folder / self.name
        if self.file is not None and self.straightening is None and _is_plain(self.file):
            shutil.copyfile(self.file, path)
        else:
            save_image(path, self.load())


def focal_pixels(view: View, focal_35mm: float) -> float:
    """Focal length in pixels of the photo, from that of a full-frame camera with the same diagonal angle."""
    return focal_35mm * math.hypot(view.resize.original_width, view.resize.original_height) / FULL_FRAME


def photo_pixels(resize: Resize, xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Pixels of the original photo of normalised coordinates of the working image."""
    homogeneous = np.concatenate([xy, np.ones((len(xy), 1))], 1)
    return (homogeneous @ np.linalg.inv(resize.matrix).T)[:, :2]


def with_names(views: Sequence[View]) -> list[View]:
    """Gives each view a unique file name of harmless characters."""
    used: set[str] = set()
    named = []
    for view in views:
        stem, suffix = Path(view.label).stem, Path(view.label).suffix.lower()
        stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in stem).lstrip(".")
        plain = view.file is not None and _is_plain(view.file)
        suffix = suffix if plain else ".png" if suffix in _LOSSLESS else ".jpg"
        stem, number = stem[:_LONGEST_STEM] or "view", 1
        unique = stem
        while unique.lower() in used:  # also without the suffix, since depth maps have another one
            number += 1
            unique = f"{stem}_{number}"
        used.add(unique.lower())
        named.append(replace(view, name=unique + suffix))
    return named


def _is_plain(file: Path) -> bool:
    """Whether other tools read the file the way we do: JPEG or 8-bit PNG, upright, opaque, sRGB."""
    expected = _PLAIN_FORMATS.get(file.suffix.lower())
    return expected is not None and is_plain(file, (expected,))
