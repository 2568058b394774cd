"""Pictures of what the model makes of a batch: contexts, depth, target, rendering, cameras side by side."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from nas3r.geometry import Cameras
from nas3r.reconstruction.colormap import colorize_depth, depth_limits


def color_depth(depth: Float[Tensor, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Depth as colour, between its own limits; what is no finite number is unknown."""
    known = depth.nan_to_num(0, 0, 0).numpy()
    return colorize_depth(known, depth_limits(known))


def _to_image(photo: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    return (photo.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def draw_cameras(context: Cameras, target: Cameras, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Cameras seen from above (x to the right, z up): contexts green, targets orange.

    Args:
        context: Of one scene, batch of one.
        target: Likewise.
        size: Side of the picture in pixels.
    """
    image = Image.new("RGB", (size, size), (24, 24, 24))
    draw = ImageDraw.Draw(image)
    both = Cameras.cat([context, target])
    positions = both.world_from_camera[0, :, [0, 2], 3].numpy()
    span = max(float(np.ptp(positions, axis=0).max()), 1e-6)
    middle = (positions.max(0) + positions.min(0)) / 2
    unit, wing = 0.6 * size / span, 0.12 * size
    focal = both.intrinsics[0, :, 0, 0].numpy()
    for i, pose in enumerate(both.world_from_camera[0].numpy()):
        color = (90, 220, 120) if i < context.num_views else (255, 160, 60)
        x, y = (positions[i] - middle) * unit * (1, -1) + size / 2
        corners = [pose[:3, :3] @ np.array([side * 0.5 / focal[i], 0, 1]) * wing for side in (-1, 1)]
        triangle = [(x, y), *((x + c[0], y - c[2]) for c in corners)]
        draw.polygon([(float(a), float(b)) for a, b in triangle], outline=color)
    return np.asarray(image)


def make_panel(
    context: Float[Tensor, "b vc 3 h w"],
    target: Float[Tensor, "b vt 3 h w"],
    rendered: Float[Tensor, "b vt 3 h w"],
    depth: Float[Tensor, "b vc h w"],
    cameras: Cameras,
    target_cameras: Cameras,
    *,
    rows: int = 4,
    tile: int = 128,
) -> UInt8[np.ndarray, "height width 3"]:
    """One row per scene: first and last context, their depth, target, rendering, error (x 4), cameras."""
    lines = []
    for b in range(min(rows, context.shape[0])):
        error = (rendered[b, 0] - target[b, 0]).abs() * 4
        tiles = [
            _to_image(context[b, 0]),
            _to_image(context[b, -1]),
            color_depth(depth[b, 0]),
            color_depth(depth[b, -1]),
            _to_image(target[b, 0]),
            _to_image(rendered[b, 0]),
            _to_image(error),
        ]
        one = slice(b, b + 1)
        top = draw_cameras(
            Cameras(cameras.world_from_camera[one], cameras.intrinsics[one]),
            Cameras(target_cameras.world_from_camera[one], target_cameras.intrinsics[one]),
            tile,
        )
        width = round(tile * context.shape[-1] / context.shape[-2])
        resized = [
            np.asarray(Image.fromarray(t).resize((width, tile), Image.Resampling.NEAREST)) for t in tiles
        ]
        lines.append(np.concatenate([*resized, top], 1))
    return np.concatenate(lines, 0)


def save_image(image: UInt8[np.ndarray, "h w 3"], path: Path) -> None:
    """Writes a PNG under a temporary name, then renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    Image.fromarray(image).save(temporary, format="PNG")
    temporary.replace(path)
