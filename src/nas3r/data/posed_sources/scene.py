"""A posed scene made of separate image files, read at any size: what most readers return."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nas3r.data.posed import PosedViews
from nas3r.data.posed_sources.distortion import Distortion, straightening
from nas3r.geometry import Cameras, pixel_grid, relative_to_first
from nas3r.io.images import Resize, load_image

logger = logging.getLogger(__name__)

# A rotation read from a text file is orthogonal to its number of digits; beyond this it is no rotation.
_MAX_SKEW = 1e-2

_MOST_NAMED = 10  # views left out that a warning names


@dataclass(frozen=True)
class Frame:
    """One image with its camera, not read yet.

    Attributes:
        image: Path of the photo, or a function that decodes it to uint8 [h, w, 3].
        world_from_camera: Camera-to-world pose, OpenCV axes [4, 4].
        intrinsics: In pixels of an image of `size` [3, 3].
        size: (width, height) the intrinsics refer to; a file of another size but the same shape is fine.
        distortion: Lens distortion, None if there is none.
        depth: Function that reads the z-depth in the unit of the poses [h, w], 0 where unknown; registered to
            the (distorted) image, at any resolution. None if there is none.
        number: Of the view in the data's own count, which published indices use; None for its position.
    """

    image: Path | Callable[[], UInt8[np.ndarray, "h w 3"]]
    world_from_camera: Float[Tensor, "4 4"]
    intrinsics: Float[Tensor, "3 3"]
    size: tuple[int, int]
    distortion: Distortion | None = None
    depth: Callable[[], Float[np.ndarray, "h w"]] | None = None
    number: int | None = None


@dataclass(frozen=True)
class Kept:
    """What is left of a description once its broken frames are left out.

    Attributes:
        frames: Those that can be used, each with its number in the data.
        left_out: Why the others cannot, by their number in the data.
    """

    frames: tuple[Frame, ...]
    left_out: Mapping[int, str]


class ImageScene:
    """Frames of one scene; a `PosedScene`.

    The world is moved to the first frame's camera, in float64, so that coordinates far from the origin keep
    their precision.

    Args:
        name: Of the scene.
        frames: At least one.
        depth_known_up_to: See `PosedViews`.
        left_out: Why views of the data are not among the frames, by their number in the data.
        pairs: For views of the data, by number, the numbers of those that match best, best first; where the
            data come with such a list.

    Raises:
        ValueError: Without frames, or if a pose is not a finite rigid motion.
    """

    def __init__(
        self,
        name: str,
        frames: Sequence[Frame],
        depth_known_up_to: Literal["scale", "disparity_shift"] = "scale",
        *,
        left_out: Mapping[int, str] | None = None,
        pairs: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        if not frames:
            raise ValueError(f"{name}: no posed image found")
        self.name = name
        self.frames = tuple(frames)
        self.left_out = dict(left_out or {})
        self.pairs = dict(pairs or {})
        self.depth_known_up_to: Literal["scale", "disparity_shift"] = depth_known_up_to
        poses = torch.stack([rigid(f.world_from_camera, f"{name}, view {i}") for i, f in enumerate(frames)])
        self._poses = relative_to_first(poses)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Number of each view in the data's own count."""
        return tuple(i if f.number is None else f.number for i, f in enumerate(self.frames))

    @property
    def full_size(self) -> tuple[int, int]:
        """Smallest width and smallest height of the images."""
        return min(f.size[0] for f in self.frames), min(f.size[1] for f in self.frames)

    @property
    def has_depth(self) -> list[bool]:
        """Which views have a depth map."""
        return [f.depth is not None for f in self.frames]

    def read(self, indices: Sequence[int], height: int, width: int) -> PosedViews:
        """Some views, undistorted, resized to cover `height` x `width` and centre-cropped.

        Raises:
            ValueError: Naming the file that cannot be read.
        """
        views = [_read_frame(self.frames[i], height, width, f"{self.name}, view {i}") for i in indices]
        cameras = Cameras(
            self._poses[list(indices)].float()[None], torch.stack([v.intrinsics for v in views]).float()[None]
        )
        depth = None
        if any(v.depth is not None for v in views):
            unknown = torch.zeros(height, width)
            depth = torch.stack([unknown if v.depth is None else v.depth for v in views])
        images = torch.stack([v.image for v in views])
        return PosedViews(self.name, images, cameras, depth, self.depth_known_up_to)


@dataclass(frozen=True)
class _View:
    image: Float[Tensor, "3 h w"]
    intrinsics: Float[Tensor, "3 3"]
    depth: Float[Tensor, "h w"] | None


def _read_frame(frame: Frame, height: int, width: int, name: str) -> _View:
    image = load_image(frame.image) if isinstance(frame.image, Path) else frame.image()
    h, w = image.shape[:2]
    if abs(w * frame.size[1] - h * frame.size[0]) > max(w, h, *frame.size):  # one pixel of rounding
        raise ValueError(
            f"{name}: image of {w}x{h}, camera for {frame.size[0]}x{frame.size[1]}, which has another shape"
        )
    original = frame.intrinsics.double() / torch.tensor([*frame.size, 1.0], dtype=torch.float64)[:, None]
    straight = straightening(frame.distortion, original, w, h)
    image = image if straight is None else straight.apply(image)
    new = original if straight is None else straight.new_intrinsics
    resize = Resize(w, h, width, height)
    pixels = torch.tensor(resize.apply(image)).permute(2, 0, 1).float() / 255
    in_pixels = new * torch.tensor([w, h, 1.0], dtype=torch.float64)[:, None]
    depth = None
    if frame.depth is not None:
        xy = _source_coordinates(resize)
        xy = xy if straight is None else straight.source(xy)
        depth = _sample_nearest(torch.from_numpy(np.asarray(frame.depth(), np.float32)), xy)
    return _View(pixels, resize.apply_intrinsics(in_pixels), depth)


def _source_coordinates(resize: Resize) -> Float[Tensor, "h w 2"]:
    """Normalised coordinates in the original image of the output's pixel centres."""
    inverse = torch.from_numpy(np.linalg.inv(resize.matrix))
    grid = pixel_grid(resize.height, resize.width, dtype=torch.float64)
    pixels = torch.cat([grid, torch.ones_like(grid[..., :1])], -1) @ inverse.mT
    return pixels[..., :2] / torch.tensor([resize.original_width, resize.original_height])


def _sample_nearest(values: Float[Tensor, "h w"], xy: Float[Tensor, "h2 w2 2"]) -> Float[Tensor, "h2 w2"]:
    """Values at normalised coordinates; depth must not be averaged across edges or holes."""
    height, width = values.shape
    x = (xy[..., 0] * width).floor().long()
    y = (xy[..., 1] * height).floor().long()
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    sampled = values[y.clamp(0, height - 1), x.clamp(0, width - 1)]
    usable = inside & sampled.isfinite() & (sampled > 0)
    return torch.where(usable, sampled, torch.zeros_like(sampled))


def rigid(pose: Tensor | np.ndarray | Sequence, name: str) -> Float[Tensor, "4 4"]:
    """The float64 rigid motion nearest to a 4x4 matrix read from a file.

    Raises:
        ValueError: If it is not finite, or no rotation and translation within a hundredth.
    """
    matrix = torch.as_tensor(np.asarray(pose, dtype=np.float64))
    if matrix.shape not in ((4, 4), (3, 4)) or not bool(matrix.isfinite().all()):
        raise ValueError(f"{name}: expected a finite 4x4 pose, got {matrix.tolist()}")
    u, _, vt = torch.linalg.svd(matrix[:3, :3])
    rotation = u @ vt
    if float((rotation - matrix[:3, :3]).abs().max()) > _MAX_SKEW or float(torch.linalg.det(rotation)) < 0:
        raise ValueError(f"{name}: the pose's 3x3 part is not a rotation: {matrix[:3, :3].tolist()}")
    out = torch.eye(4, dtype=torch.float64)
    out[:3, :3], out[:3, 3] = rotation, matrix[:3, 3]
    return out


def pinhole(fx: float, fy: float, cx: float, cy: float) -> Float[Tensor, "3 3"]:
    """Intrinsics matrix, in float64.

    Raises:
        ValueError: If a value is not finite or a focal length not positive.
    """
    matrix = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    if not bool(matrix.isfinite().all()) or min(fx, fy) <= 0:
        raise ValueError(
            f"expected finite intrinsics with positive focal lengths, got {fx}, {fy}, {cx}, {cy}"
        )
    return matrix


def keep_usable(make: Sequence[Callable[[], Frame]], name: str, numbers: Sequence[int] | None = None) -> Kept:
    """The frames that can be made and whose image exists; the others are counted and named in a warning.

    Args:
        make: Makes one frame each, or raises ValueError.
        name: What messages call the description they come from.
        numbers: Of the views in the data's own count; None where that is their order.

    Raises:
        ValueError: If none is left: what is wrong with the first.
    """
    frames, no_camera, no_image = [], {}, {}
    for number, one in zip(range(len(make)) if numbers is None else numbers, make, strict=True):
        try:
            frame = one()
        except ValueError as error:
            no_camera[number] = str(error)
            continue
        if isinstance(frame.image, Path) and not frame.image.is_file():
            no_image[number] = f"{frame.image}: there is no such image"
        else:
            frames.append(replace(frame, number=number))
    if not frames and no_image:
        first = next(iter(no_image.values())).partition(":")[0]
        raise ValueError(f"{name}: none of its {len(make)} images exists, e.g. {first}")
    if not frames and no_camera:
        raise ValueError(f"{name}: {next(iter(no_camera.values()))}")
    if no_camera:
        logger.warning(
            "%s: %s", name, _count(no_camera, make, "views have no usable camera or image and are left out")
        )
    if no_image:
        logger.warning("%s: %s", name, _count(no_image, make, "images are missing"))
    return Kept(tuple(frames), no_camera | no_image)


def _count(reasons: Mapping[int, str], of: Sequence, what: str) -> str:
    numbers = ", ".join(map(str, list(reasons)[:_MOST_NAMED]))
    more = f" and {len(reasons) - _MOST_NAMED} more" if len(reasons) > _MOST_NAMED else ""
    first = next(iter(reasons.values()))
    return f"{len(reasons)} of {len(of)} {what} (numbers {numbers}{more}), e.g. {first}"
