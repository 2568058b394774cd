"""Depth maps as 16-bit PNG and as NPZ.

Depth is z-depth in the unit of the camera poses, which is arbitrary. A PNG counts in steps of
`unit_per_count` (depth = value * unit_per_count); 0 means unknown. The step is written into the PNG
itself (text chunk "unit_per_count") and into the NPZ beside it, which holds the exact float32 values.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from nas3r.io.atomic import atomic_path, write_bytes
from nas3r.io.npz_files import has_array, read_arrays

LARGEST_COUNT = 65535
UNIT = "scene unit (that of the camera poses; arbitrary)"


@dataclass(frozen=True)
class DepthMap:
    """A depth map and the camera it belongs to.

    Attributes:
        depth: z-depth [h, w], 0 where unknown.
        intrinsics: In pixels of the depth map [3, 3].
        world_from_camera: Camera to world [4, 4], OpenCV axes.
        confidence: In [0, 1] [h, w]; None if it is not known.
    """

    depth: Float[np.ndarray, "h w"]
    intrinsics: Float[np.ndarray, "3 3"]
    world_from_camera: Float[np.ndarray, "4 4"]
    confidence: Float[np.ndarray, "h w"] | None = None


def depth_step(depth: Float[np.ndarray, "*shape"]) -> float:
    """The unit per count with which the largest depth of these maps just fits 16 bits."""
    largest = float(depth.max(initial=0.0))
    return largest / LARGEST_COUNT if largest > 0 else 1.0


def write_depth_png(path: Path | str, depth: Float[np.ndarray, "h w"], unit_per_count: float) -> None:
    """Writes a 16-bit PNG, atomically; see `encode_depth_png`."""
    write_bytes(path, encode_depth_png(depth, unit_per_count))


def encode_depth_png(depth: Float[np.ndarray, "h w"], unit_per_count: float) -> bytes:
    """A 16-bit PNG file.

    Raises:
        ValueError: If a depth is negative, not finite or too large for 16 bits at this step.
    """
    counts = np.round(np.asarray(depth, np.float64) / unit_per_count)
    if not np.isfinite(counts).all() or counts.min(initial=0) < 0 or counts.max(initial=0) > LARGEST_COUNT:
        raise ValueError(
            f"depth: expected finite values in [0, {LARGEST_COUNT * unit_per_count:.6g}], got "
            f"[{np.min(depth):.6g}, {np.max(depth):.6g}]"
        )
    text = PngImagePlugin.PngInfo()
    text.add_text("unit_per_count", repr(float(unit_per_count)))
    text.add_text("unit", UNIT)
    buffer = io.BytesIO()
    Image.fromarray(counts.astype(np.uint16)).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def read_depth_png(path: Path | str) -> Float[np.ndarray, "h w"]:
    """Depth of a PNG written by `write_depth_png`, float32.

    Raises:
        ValueError: If the file is not a 16-bit PNG that states its step.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            step = float(image.info["unit_per_count"])
            return (np.asarray(image).astype(np.float64) * step).astype(np.float32)
    except (KeyError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a depth PNG with a 'unit_per_count' text") from error


def write_depth_npz(path: Path | str, depth_map: DepthMap, unit_per_count: float) -> None:
    """Writes the exact depth with its camera and unit, atomically."""
    known = {}
    if depth_map.confidence is not None:
        known["confidence"] = depth_map.confidence.astype(np.float32)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            **known,
            depth=depth_map.depth.astype(np.float32),
            intrinsics=depth_map.intrinsics.astype(np.float64),
            world_from_camera=depth_map.world_from_camera.astype(np.float64),
            unit=np.array(UNIT),
            png_unit_per_count=np.array(unit_per_count),
        )


def read_depth_npz(path: Path | str) -> DepthMap:
    """Reads what `write_depth_npz` wrote; never unpickles.

    Raises:
        ValueError: If the file is not such an NPZ.
    """
    depth, intrinsics, pose = read_arrays(path, ("depth", "intrinsics", "world_from_camera"), "depth NPZ")
    confidence = None
    if has_array(path, "confidence"):
        (confidence,) = read_arrays(path, ("confidence",), "depth NPZ")
    if depth.ndim != 2 or intrinsics.shape != (3, 3) or pose.shape != (4, 4) or depth.dtype.kind != "f":
        raise ValueError(f"{path}: not a depth NPZ written by nas3r (its arrays have other shapes)")
    if confidence is not None and confidence.shape != depth.shape:
        raise ValueError(f"{path}: not a depth NPZ written by nas3r (its confidence has another shape)")
    return DepthMap(depth, intrinsics, pose, confidence)
