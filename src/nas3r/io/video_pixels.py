"""A decoded frame of a video as upright, opaque, progressive 8-bit RGB of square pixels."""

from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nas3r.io.colors import HLG, PQ, from_hdr

_WIDEST_PIXEL = 4.0  # discs have up to 1.46, anamorphic lenses 2
_UNSPECIFIED = 2  # of a colour matrix (ITU-T H.273)
_HD = (1280, 577)  # width or height from which players take an unspecified matrix for that of BT.709


def upright_rgb(frame: Any, max_size: int | None, aspect: float) -> UInt8[np.ndarray, "h w 3"]:
    """A frame as it is shown.

    Args:
        frame: As PyAV gives it.
        max_size: Longest side in pixels; larger ones are scaled down.
        aspect: Width of a pixel by its height, see `pixel_aspect`.
    """
    width, height = square_size(frame.width, frame.height, aspect)
    longest = max(width, height)
    scale = min(1.0, (max_size or longest) / longest)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    if frame.interlaced_frame:
        rgb = _resized(_rgb(frame, frame.width, frame.height)[::2], width, height)
    else:
        rgb = _rgb(frame, width, height)
    return np.ascontiguousarray(_turned(rgb, display_matrix(frame)))


def pixel_aspect(stream: Any, name: str) -> float:
    """Width of a pixel by its height, as the container says, else the codec; 1 where neither does.

    Raises:
        ValueError: It is beyond anything that a camera or a disc has.
    """
    told = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    aspect = float(told) if told else 1.0
    if not 1 / _WIDEST_PIXEL <= aspect <= _WIDEST_PIXEL:
        raise ValueError(f"{name}: pixels of {told} are not supported; convert the video to square pixels")
    return aspect


def square_size(width: int, height: int, aspect: float) -> tuple[int, int]:
    """The size at which pixels are square, neither side smaller than before."""
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """How a stored frame is shown: a, b, c, d of x' = a x + c y and y' = b x + d y, y down.

    Phones store the rotation apart, front cameras a reflection too. Each is -1, 0 or 1; turns by other angles
    than quarters are rounded.
    """
    stored = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return 1, 0, 0, 1
    matrix = np.frombuffer(bytes(stored), np.int32)[[0, 1, 3, 4]].astype(np.int64)
    turned = abs(matrix[[1, 2]]).sum() > abs(matrix[[0, 3]]).sum()
    a, b, c, d = (int(sign) for sign in np.where(matrix < 0, -1, 1))
    return (0, b, c, 0) if turned else (a, 0, 0, d)


def _turned(rgb: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    a, b, c, d = matrix
    if not a:
        rgb = rgb.transpose(1, 0, 2)
    columns, rows = a or c, b or d
    return rgb[::rows, ::columns]


def _rgb(frame: Any, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
    hdr = frame.color_trc in (PQ, HLG)
    opaque = not any(component.is_alpha for component in frame.format.components)
    rgb = frame.reformat(
        width=width,
        height=height,
        format="rgb48le" if hdr else "rgb24" if opaque else "rgba",
        src_colorspace="ITU709" if _is_untold_hd(frame) else None,
        interpolation="LANCZOS",
    ).to_ndarray()
    if hdr:
        return from_hdr(rgb, frame.color_trc)
    return rgb if opaque else _on_white(rgb)


def _is_untold_hd(frame: Any) -> bool:
    return frame.colorspace == _UNSPECIFIED and (frame.width >= _HD[0] or frame.height >= _HD[1])


def _on_white(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    image = Image.fromarray(rgba)
    return np.array(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def _resized(image: UInt8[np.ndarray, "h w 3"], width: int, height: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
