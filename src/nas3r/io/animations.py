"""Animated GIF, PNG, WebP and AVIF files: image files that hold a short video."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from nas3r.io.images import decoded, open_image

# Formats whose further pictures are later moments; those of TIFF, MPO and HEIC are pages, thumbnails, depth.
_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")


def num_frames(path: str | os.PathLike[str]) -> int:
    """Number of frames of an animated image; 1 for a picture.

    Raises:
        ValueError: The file is empty, damaged, or no image.
        OSError: The file is missing or may not be read.
    """
    with Path(path).open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = open_image(file, str(path))
        if image.format not in _FORMATS:
            return 1
        try:
            return int(getattr(image, "n_frames", 1))
        except MemoryError:
            raise
        except Exception as error:  # decoders raise nearly anything when fed damaged files
            raise ValueError(f"{path}: damaged or truncated animation ({error})") from error


def read_animation(
    path: str | os.PathLike[str], indices: Sequence[int]
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Decodes frames of an animated image in ascending order, each as `load_image` would the first.

    Yields:
        uint8 [height, width, 3] RGB.

    Raises:
        ValueError: The file is damaged, or has no such frame.
        OSError: The file is missing or may not be read.
    """
    with Path(path).open("rb") as file:
        image = open_image(file, str(path))
        for index in indices:
            yield decoded(image, file, f"{path}, frame {index}", frame=index)
