"""Rectified stereo pairs with disparity: Middlebury's 2005/2006 and 2014 (and evaluation version 3) sets."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nas3r.data.posed_sources.depth_image import read_pfm
from nas3r.data.posed_sources.scene import Frame, ImageScene, pinhole
from nas3r.io.images import image_size

# Middlebury's page of the 2005 and 2006 sets: focal length at full size in pixels, baseline in metres.
_FOCAL, _BASELINE = 3740.0, 0.160


@dataclass(frozen=True)
class _Side:
    """One image of a pair."""

    image: Path
    principal: tuple[float, float]
    disparity: Callable[[], np.ndarray] | None


def is_stereo(folder: Path) -> bool:
    """Whether the folder is a stereo pair of a known layout."""
    return _is_2006(folder) or _is_2014(folder)


def read_stereo(folder: Path) -> ImageScene:
    """A stereo pair as a scene of two views, left first; unit metre.

    Layouts: `view1`, `view5`, `disp1.png`, `disp5.png` (2005/2006; disparity of the full-size image in whole
    pixels) with `dmin.txt` here or `../dmin/NAME.txt`; and `im0`, `im1`, `calib.txt`, `disp0GT.pfm`,
    `disp0.pfm` or `disp0GT_x128.png`. Where the 2005/2006 offset (`dmin`) is missing, 1 / depth is known
    up to an affine map only, and the views say so.

    Raises:
        ValueError: If a file is missing or damaged.
    """
    return _read_2006(folder) if _is_2006(folder) else _read_2014(folder)


def _find(folder: Path, stem: str) -> Path | None:
    return next((p for s in (".png", ".jpg", ".ppm") if (p := folder / f"{stem}{s}").is_file()), None)


def _is_2006(folder: Path) -> bool:
    return all(_find(folder, stem) for stem in ("view1", "view5", "disp1"))


def _is_2014(folder: Path) -> bool:
    return (folder / "calib.txt").is_file() and all(_find(folder, stem) for stem in ("im0", "im1"))


def _read_2006(folder: Path) -> ImageScene:
    left, right = (_required(folder, stem) for stem in ("view1", "view5"))
    width, height = image_size(left)
    # The sets come at full, half and third size, between 1240 and 1390 px wide at full size; the disparity
    # files hold full-size pixels in all three.
    shrink = 3 if width < 500 else 2 if width < 800 else 1
    offset_file = next(
        (p for p in (folder / "dmin.txt", folder.parent / "dmin" / f"{folder.name}.txt") if p.is_file()), None
    )
    offset = float(offset_file.read_text()) / shrink if offset_file else 0.0
    # The images were cropped to what both see: the principal points move apart by the offset. How it is
    # shared between them is not published; half each.
    sides = [
        _Side(left, (width / 2 - offset / 2, height / 2), _png_disparity(_find(folder, "disp1"), shrink)),
        _Side(right, (width / 2 + offset / 2, height / 2), _png_disparity(_find(folder, "disp5"), shrink)),
    ]
    kind = "scale" if offset_file else "disparity_shift"
    return ImageScene(folder.name, _frames(sides, _FOCAL / shrink, _BASELINE, offset), kind)


def _read_2014(folder: Path) -> ImageScene:
    calibration = _read_calibration(folder / "calib.txt")
    left, right = calibration["cam0"], calibration["cam1"]
    truth = next(
        (p for n in ("disp0GT.pfm", "disp0.pfm", "disp0GT_x128.png") if (p := folder / n).is_file()), None
    )
    if truth is None:
        raise ValueError(f"{folder}: no disparity (disp0GT.pfm, disp0.pfm or disp0GT_x128.png)")
    disparity = _pfm_disparity(truth) if truth.suffix == ".pfm" else _png_disparity(truth, 128)
    sides = [
        _Side(_required(folder, "im0"), (left[2], left[5]), disparity),
        _Side(_required(folder, "im1"), (right[2], right[5]), None),
    ]
    metres = calibration["baseline"][0] / 1000
    return ImageScene(folder.name, _frames(sides, left[0], metres, calibration["doffs"][0]))


def _frames(sides: list[_Side], focal: float, baseline: float, offset: float) -> list[Frame]:
    frames = []
    for number, side in enumerate(sides):
        pose = torch.eye(4, dtype=torch.float64)
        pose[0, 3] = number * baseline
        depth = None if side.disparity is None else _depth(side.disparity, focal * baseline, offset)
        intrinsics = pinhole(focal, focal, *side.principal)
        frames.append(Frame(side.image, pose, intrinsics, image_size(side.image), depth=depth))
    return frames


def _depth(disparity: Callable[[], np.ndarray], scale: float, offset: float) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        d = disparity()
        known = np.isfinite(d) & (d > 0)
        return np.where(known, scale / np.maximum(np.where(known, d, 1) + offset, 1e-6), 0)

    return read


def _required(folder: Path, stem: str) -> Path:
    path = _find(folder, stem)
    if path is None:
        raise ValueError(f"{folder}: no image {stem} (.png, .jpg or .ppm)")
    return path


def _png_disparity(path: Path | None, steps_per_pixel: float) -> Callable[[], np.ndarray] | None:
    """Reader of disparities in pixels; 0 is unknown."""
    if path is None:
        return None

    def read() -> np.ndarray:
        try:
            with Image.open(path) as image:
                values = np.asarray(image)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{path}: not a readable disparity image ({error})") from error
        if values.ndim != 2:
            raise ValueError(f"{path}: expected a single-channel disparity image, got {list(values.shape)}")
        return values.astype(np.float32) / steps_per_pixel

    return read


def _pfm_disparity(path: Path) -> Callable[[], np.ndarray]:
    return lambda: read_pfm(path)


def _read_calibration(path: Path) -> dict[str, list[float]]:
    """`name=value` lines; matrices [a b c; d e f; ...] become flat lists."""
    values = {}
    for line in path.read_text().splitlines():
        name, _, text = line.partition("=")
        try:
            values[name.strip()] = [float(v) for v in re.sub(r"[\[\];]", " ", text).split()]
        except ValueError:
            continue  # a line that is not numeric is not needed
    missing = [
        n
        for n, count in (("cam0", 9), ("cam1", 9), ("doffs", 1), ("baseline", 1))
        if len(values.get(n, [])) != count
    ]
    if missing:
        raise ValueError(f"{path}: no valid {', '.join(missing)}")
    return values
