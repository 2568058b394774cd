"""Frames that say which clip and frame they are."""

import io
import tarfile

import numpy as np
import torch
from PIL import Image


def numbered(clip: int, frame: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Red says the clip, green the frame, in steps of 8 grey levels each; blue falls from left to right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = 8 * clip, 8 * frame
    image[..., 2] = np.linspace(255, 0, width).astype(np.uint8)
    return image


def read_number(image: torch.Tensor) -> tuple[int, int]:
    """Clip and frame of an image [3, h, w], uint8 or in [0, 1]."""
    values = image.float() * (255 if image.dtype.is_floating_point else 1)
    clip, frame = (values[:2].mean((1, 2)) / 8).round().int().tolist()
    return clip, frame


def jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def add_file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
