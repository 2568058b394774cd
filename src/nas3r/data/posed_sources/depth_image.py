"""Depth maps in image files."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def depth_png(path: Path, unit: float, invalid: int | None = None) -> Callable[[], np.ndarray]:
    """Reader of a 16-bit depth image: values times `unit`, 0 and `invalid` unknown.

    Args:
        path: Of a single-channel PNG.
        unit: Length of one step, in the unit of the poses.
        invalid: Another value that means unknown.
    """

    def read() -> np.ndarray:
        try:
            with Image.open(path) as image:
                values = np.asarray(image)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{path}: not a readable depth image ({error})") from error
        if values.ndim != 2:
            raise ValueError(f"{path}: expected a single-channel depth image, got shape {list(values.shape)}")
        depth = values.astype(np.float32) * unit
        if invalid is not None:
            depth[values == invalid] = 0
        return depth

    return read


def read_pfm(path: Path) -> np.ndarray:
    """A grey portable float map, first row at the top; float32 [h, w].

    Raises:
        ValueError: If the file is damaged or in colour.
    """
    data = path.read_bytes()
    header = re.match(rb"Pf\s+(\d+)\s+(\d+)\s+(-?[\d.eE+-]+)\s", data)
    if header is None:
        raise ValueError(f"{path}: not a grey PFM file")
    width, height, scale = int(header[1]), int(header[2]), float(header[3])
    if len(data) - header.end() != 4 * width * height:
        raise ValueError(f"{path}: expected {width}x{height} floats, got {len(data) - header.end()} bytes")
    values = np.frombuffer(data, "<f4" if scale < 0 else ">f4", offset=header.end())
    return values.reshape(height, width)[::-1].astype(np.float32)
