"""Photos in, upright 8-bit RGB out; and the one resize whose effect on intrinsics can be undone."""

import functools
import io
import math
import os
import re
import warnings
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from nas3r.io.atomic import atomic_path
from nas3r.io.colors import is_srgb, to_srgb
from nas3r.io.other_formats import what_to_do
from nas3r.memory import require_memory

# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".heic", ".heif", ".avif", ".tif", ".tiff", ".bmp", ".ppm",
    ".pgm", ".pnm", ".gif", ".jp2", ".mpo", ".apng",
))
# fmt: on

# Decoders that are tried. Left out on purpose are those that start other programs (EPS) or read exotic files.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "JPEG2000", "AVIF")

MAX_PIXELS = 178_000_000
"""Larger images are not decoded as they are (a few bytes can claim gigapixels): JPEGs are read reduced,
others are refused. Just under the limit at which Pillow itself refuses."""

_MOST_REDUCED_PIXELS = 1_000_000_000

_PNG = b"\x89PNG\r\n\x1a\n"
_LONGEST_PNG_PART = 2**31 - 1  # of the format
_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OTHER_TIFF = "a TIFF of a kind that is not read (floating point, several layers); export 8 or 16 bits"
_DNG_VERSION = 50706  # TIFF tag
_TOO_LARGE = "scale it down first"
_WORTH_ASKING = 20_000_000  # pixels; smaller images fit anywhere

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")

# How many times more pixels than are kept a scaled image may have before the crop.
_MOST_CROPPED = 16

K = TypeVar("K", np.ndarray, Tensor)


def load_image(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "h w 3"]:
    """Reads a photo as 8-bit RGB.

    The EXIF orientation is applied, transparency is composited on white, 16-bit samples are scaled to 8
    bits, grey and palette images become RGB.

    Args:
        path: JPEG, PNG, WebP, TIFF, BMP, PPM, GIF (first frame), JPEG 2000, AVIF, or HEIC (needs the
            `heic` extra).

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: The file is empty, truncated, no image, or larger than `MAX_PIXELS` and no JPEG, which
            is then read at a half, a quarter or an eighth of its size.
        InsufficientMemoryError: It would not fit into memory.
        OSError: The file is missing or may not be read.
        ModuleNotFoundError: A HEIC file without the `heic` extra.
    """
    with Path(path).open("rb") as file:
        return _decode(file, str(path))


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Like `load_image`, for the bytes of a file; `name` is what error messages call it."""
    return _decode(io.BytesIO(data), name)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of the upright photo, from the header alone.

    Raises:
        ValueError: As for `load_image`, as far as the header tells.
        OSError: The file is missing or may not be read.
    """
    with Path(path).open("rb") as file:
        image = open_image(file, str(path))
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def is_depth_like(path: str | os.PathLike[str]) -> bool:
    """Whether the header says one channel of 16 bits or more: a depth map or mask rather than a photo."""
    with Path(path).open("rb") as file:
        return open_image(file, str(path)).mode.startswith(("I", "F"))


def is_plain(path: str | os.PathLike[str], formats: Collection[str]) -> bool:
    """Whether other tools read a file as `load_image` does: upright, opaque, 8 bits, sRGB, not too large.

    Args:
        path: Of a readable image.
        formats: Pillow's names of the formats that count as plain.
    """
    with Path(path).open("rb") as file:
        image = open_image(file, str(path))
        simple = image.mode in ("RGB", "L") and not image.has_transparency_data
        known = image.format in formats and is_srgb(image)
        return known and simple and not _is_reduced(image) and _orientation(image) == 1


def read_exif(path: str | os.PathLike[str]) -> Image.Exif:
    """The EXIF data of a photo; empty where there are none, or they are damaged."""
    try:
        with Path(path).open("rb") as file:
            return open_image(file, str(path)).getexif()
    except MemoryError:
        raise
    except Exception:  # broken metadata raises nearly anything and must not cost the photo
        return Image.Exif()


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The image files directly in a folder, in natural order (`frame2` before `frame10`).

    Raises:
        OSError: The folder is missing or may not be read.
    """
    files = [
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(files, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that orders runs of digits by their value."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def save_image(path: str | os.PathLike[str], image: np.ndarray, quality: int = 95) -> None:
    """Writes an image; the suffix of `path` chooses the format, and the file appears complete or not at all.

    Args:
        path: File to write, `.png`, `.jpg` or `.webp`.
        image: uint8 [height, width, 3] or [height, width]; uint16 [height, width] for PNG.
        quality: Of JPEG and WebP.

    Raises:
        ValueError: Another shape, type or suffix.
        OSError: The folder is missing, not writable or full.
    """
    path = Path(path)
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
    if path.suffix.lower() not in formats:
        raise ValueError(f"{path}: expected a suffix among {', '.join(formats)}")
    eight_bit = image.dtype == np.uint8 and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3))
    sixteen_bit = image.dtype == np.uint16 and image.ndim == 2 and path.suffix.lower() == ".png"
    if not (eight_bit or sixteen_bit):
        raise ValueError(
            f"{path}: expected uint8 [h, w, 3] or [h, w], or uint16 [h, w] for PNG; "
            f"got {image.dtype} {list(image.shape)}"
        )
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format=formats[path.suffix.lower()], quality=quality)


def encode_jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int = 95) -> bytes:
    """The bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def resized(image: UInt8[np.ndarray, "h w 3"], width: int, height: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """An image at another size (Lanczos, on 8-bit values)."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


@dataclass(frozen=True)
class Resize:
    """How an image was scaled to cover a size and cropped in the middle.

    The aspect ratio is kept: the scale is the smallest at which the image covers the output, and what sticks
    out is cut off evenly. As published, the scaled size is rounded to whole pixels, and so is the place of
    the crop, which moves the middle by up to half a pixel of the output: many pixels of a large photo.

    Attributes:
        original_width: In pixels.
        original_height: In pixels.
        width: Of the output.
        height: Of the output.
        exact: Crops at fractions of a pixel, so that the middle stays the middle.
    """

    original_width: int
    original_height: int
    width: int
    height: int
    exact: bool = False

    def __post_init__(self) -> None:
        if min(self.original_width, self.original_height, self.width, self.height) < 1:
            raise ValueError(f"sizes must be positive, got {self}")

    @property
    def scaled_size(self) -> tuple[int, int]:
        """Width and height before the crop, in whole pixels."""
        return (
            max(round(self.original_width * self._scale), self.width),
            max(round(self.original_height * self._scale), self.height),
        )

    @property
    def offset(self) -> tuple[int, int]:
        """Column and row of the scaled image at which the crop begins, in whole pixels."""
        scaled_width, scaled_height = self.scaled_size
        return (scaled_width - self.width) // 2, (scaled_height - self.height) // 2

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what is kept, in pixels of the original."""
        if self.exact:
            left, top, wide, high = self._exact_box
        else:
            x, y = (
                before / after
                for before, after in zip((self.original_width, self.original_height), self.scaled_size)
            )
            left, top = self.offset[0] * x, self.offset[1] * y
            wide, high = self.width * x, self.height * y
        return (
            max(0.0, left),
            max(0.0, top),
            min(float(self.original_width), left + wide),
            min(float(self.original_height), top + high),
        )

    @property
    def _exact_box(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of what is kept around the very middle, in pixels of the original."""
        wide, high = self.width / self._scale, self.height / self._scale
        return (self.original_width - wide) / 2, (self.original_height - high) / 2, wide, high

    @property
    def _scale(self) -> float:
        return max(self.height / self.original_height, self.width / self.original_width)

    def apply(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """The resized and cropped image (Lanczos, on 8-bit values).

        Args:
            image: uint8 [original_height, original_width, 3].

        Returns:
            uint8 [height, width, 3].

        Raises:
            ValueError: The image does not have the original size.
        """
        if image.shape[:2] != (self.original_height, self.original_width):
            raise ValueError(
                f"expected an image of {self.original_width} x {self.original_height} pixels, "
                f"got {image.shape[1]} x {image.shape[0]}"
            )
        if self.exact or self.of_strip:
            kept = Image.fromarray(image).resize(
                (self.width, self.height), Image.Resampling.LANCZOS, box=self.box
            )
            return np.array(kept)
        left, top = self.offset
        if self.scaled_size != (self.original_width, self.original_height):
            image = resized(image, *self.scaled_size)
        return np.ascontiguousarray(image[top : top + self.height, left : left + self.width])

    @property
    def of_strip(self) -> bool:
        """Whether the scaled image must not be made before the crop: of a narrow strip it takes gigabytes."""
        return math.prod(self.scaled_size) > _MOST_CROPPED * self.width * self.height

    @property
    def matrix(self) -> np.ndarray:
        """Homogeneous pixels of the original to normalised coordinates of the output, float64 [3, 3]."""
        if self.exact:
            left, top, wide, high = self._exact_box
            return np.array([[1 / wide, 0, -left / wide], [0, 1 / high, -top / high], [0, 0, 1]])
        scaled_width, scaled_height = self.scaled_size
        left, top = self.offset
        return np.array(
            [
                [scaled_width / self.original_width / self.width, 0, -left / self.width],
                [0, scaled_height / self.original_height / self.height, -top / self.height],
                [0, 0, 1],
            ]
        )

    def apply_intrinsics(self, intrinsics: K) -> K:
        """Pixel intrinsics of the original [..., 3, 3] to normalised intrinsics of the output [..., 3, 3]."""
        return _multiply(self.matrix, intrinsics)

    def undo_intrinsics(self, intrinsics: K) -> K:
        """Normalised intrinsics of the output [..., 3, 3] to pixel intrinsics of the original [..., 3, 3]."""
        return _multiply(np.linalg.inv(self.matrix), intrinsics)


def _multiply(matrix: np.ndarray, intrinsics: K) -> K:
    if isinstance(intrinsics, Tensor):
        return torch.as_tensor(matrix, dtype=intrinsics.dtype, device=intrinsics.device) @ intrinsics
    return (matrix @ intrinsics).astype(intrinsics.dtype)


def _decode(file: IO[bytes], name: str) -> UInt8[np.ndarray, "h w 3"]:
    return decoded(open_image(file, name), file, name)


def decoded(image: Image.Image, file: IO[bytes], name: str, frame: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an open image, upright RGB; see `load_image`.

    Args:
        image: As `open_image` gives it.
        file: That it was opened from.
        name: What error messages call it.
        frame: Which one, of an animated image.

    Raises:
        ValueError: It is damaged, or has no such frame.
    """
    if image.format == "PNG" and not frame:
        _check_png(file, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which does not touch the pixels
            if frame:
                image.seek(frame)
            image.load()
            orientation = _orientation(image)  # after the pixels: for a PNG, looking decodes them too
            rgb = _to_rgb(image, name)
    except MemoryError:
        raise
    except _NoPhotoError as error:
        raise ValueError(f"{name}: {error}; export 8 or 16 bits") from None
    except Exception as error:  # decoders raise nearly anything when fed damaged files
        raise ValueError(f"{name}: damaged or truncated image ({error})") from error
    if orientation > 1:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
    return np.array(rgb)


def _check_png(file: IO[bytes], name: str) -> None:
    """Raises ValueError for a PNG of which any part differs from its checksum: decoders do not look."""
    place = file.tell()
    file.seek(len(_PNG))
    kind = b""
    while kind != b"IEND":
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        data, told = file.read(min(length, _LONGEST_PNG_PART)), file.read(4)
        if len(head) < 8 or len(data) < length or len(told) < 4:
            raise ValueError(f"{name}: damaged or truncated image (the file ends early)")
        if zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(told, "big"):
            raise ValueError(f"{name}: damaged or truncated image (a part of it differs from its checksum)")
    file.seek(place)


def open_image(file: IO[bytes], name: str) -> Image.Image:
    """The image, its pixels not decoded yet; `name` is what error messages call it.

    Raises:
        ValueError: As for `load_image`, as far as the header tells.
    """
    head = file.read(12)
    file.seek(0)
    if not head:
        raise ValueError(f"{name}: the file is empty")
    if advice := what_to_do(name, head):
        raise ValueError(f"{name}: {advice}")
    formats = _known_formats()
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        _register_heif(name)
        formats = ("HEIF", *formats)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Not by way of Image.open, which would refuse a JPEG that can be read reduced.
            image = JpegImageFile(file) if head[:3] == _JPEG else Image.open(file, formats=formats)
    except Image.UnidentifiedImageError:
        if head[:4] in _TIFF:
            raise ValueError(f"{name}: {_OTHER_TIFF}") from None
        raise ValueError(f"{name}: not an image of a known format") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{name}: more than {MAX_PIXELS / 1e6:.0f} megapixels; {_TOO_LARGE}") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly anything when fed damaged files
        raise ValueError(f"{name}: damaged image ({error})") from error
    if image.format == "TIFF" and _DNG_VERSION in getattr(image, "tag_v2", {}):
        raise ValueError(f"{name}: {what_to_do('a.dng', b'')}")
    width, height = image.size
    if width * height > MAX_PIXELS and isinstance(image, JpegImageFile):
        _reduce(image, name)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{name}: {width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f} megapixels; {_TOO_LARGE}"
        )
    if image.width * image.height > _WORTH_ASKING:
        # The decoder's, its copy as RGB, and the array.
        require_memory(9.0 * image.width * image.height, f"{name}: {width} x {height} pixels", _TOO_LARGE)
    return image


def _reduce(image: JpegImageFile, name: str) -> None:
    """Has a JPEG decoded at a half, a quarter or an eighth of its size, which its cosines allow."""
    width, height = image.size
    if width * height > _MOST_REDUCED_PIXELS:
        return
    if image.info.get("progressive"):  # the decoder keeps all coefficients, 16 bits each
        require_memory(6.0 * width * height, f"{name}: {width} x {height} pixels", _TOO_LARGE)
    factor = next(f for f in (2, 4, 8) if width * height <= MAX_PIXELS * f * f)
    image.draft("RGB", (width // factor, height // factor))


def is_read_reduced(path: str | os.PathLike[str]) -> bool:
    """Whether a photo is so large that `load_image` reads it at a part of its size, from the header alone.

    Raises:
        ValueError: As for `load_image`, as far as the header tells.
        OSError: The file is missing or may not be read.
    """
    with Path(path).open("rb") as file:
        return _is_reduced(open_image(file, str(path)))


def _is_reduced(image: Image.Image) -> bool:
    return isinstance(image, JpegImageFile) and image.decoderconfig != ()


@functools.cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)  # old Pillows know no AVIF


@functools.cache
def _heif_opener() -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()


def _register_heif(name: str) -> None:
    try:
        _heif_opener()
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f'{name}: reading HEIC needs pip install "nas3r[heic]"') from None


# EXIF tag 274: how the stored pixels must be transposed to stand upright.
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 that is still to be applied; 1 where the metadata is absent or unreadable."""
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    try:
        orientation = image.getexif().get(274, 1)
    except Exception:  # broken metadata raises nearly anything and must not cost the photo
        return 1
    return orientation if orientation in _TRANSPOSE else 1


class _NoPhotoError(ValueError):
    """Whole, but of a kind that does not say how bright its pixels are."""


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise _NoPhotoError("floating-point pixels, which have no defined brightness")
    if image.mode.startswith("I"):  # one channel of 16 bits ("I" holds them in 32)
        samples = np.asarray(image).astype(np.int64)
        if samples.min() < 0 or samples.max() > 65535:
            raise _NoPhotoError("samples of 32 bits")
        image = Image.fromarray(((samples + 128) // 257).astype(np.uint8))
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        image.info["icc_profile"] = profile
    image = to_srgb(image, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
