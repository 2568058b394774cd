"""Points that cameras were adjusted to, with what they look like, as one NPZ file."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from nas3r.io.atomic import atomic_path
from nas3r.io.colmap import SparsePoints
from nas3r.io.npz_files import read_arrays

_NAMES = ("positions", "colors", "error", "point", "view", "pixels", "descriptors")
_LOOKS = 128


def write_sparse(path: Path | str, points: SparsePoints, descriptors: UInt8[np.ndarray, "m 128"]) -> None:
    """Writes points, where they are seen, and their looks there, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            positions=points.positions,
            colors=points.colors,
            error=points.error,
            point=points.point.astype(np.int32),
            view=points.view.astype(np.int32),
            pixels=points.pixels,
            descriptors=descriptors,
        )


def read_sparse(path: Path | str) -> tuple[SparsePoints, UInt8[np.ndarray, "m 128"]]:
    """Reads what `write_sparse` wrote; never unpickles.

    Raises:
        ValueError: If the file is not such an NPZ.
        OSError: If it is missing or may not be read.
    """
    positions, colors, error, point, view, pixels, descriptors = read_arrays(path, _NAMES, "file of points")
    count, seen = len(positions), len(point)
    shapes = (positions.shape, colors.shape, error.shape, view.shape, pixels.shape, descriptors.shape)
    right = shapes == ((count, 3), (count, 3), (count,), (seen,), (seen, 2), (seen, _LOOKS))
    integers = point.dtype.kind == view.dtype.kind == "i" and descriptors.dtype == np.uint8
    if not right or not integers or (seen and not 0 <= point.min() <= point.max() < count):
        raise ValueError(f"{path}: not a file of points written by nas3r (its arrays do not fit together)")
    if not np.isfinite(positions).all() or (seen and view.min() < 0):
        raise ValueError(f"{path}: points that are not finite, or views that do not exist")
    return SparsePoints(positions, colors.astype(np.uint8), error, point, view, pixels), descriptors
