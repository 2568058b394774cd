"""What the user gives (files, folders, videos, arrays, PIL images) as one list of photos."""

import logging
import re
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from nas3r.io.animations import num_frames, read_animation
from nas3r.io.images import IMAGE_SUFFIXES, list_images, load_image
from nas3r.io.other_formats import what_to_do
from nas3r.io.video import VIDEO_SUFFIXES, FrameIndex, index_frames, read_frames

logger = logging.getLogger(__name__)

Pixels = UInt8[np.ndarray, "h w 3"]
_OFTEN_ANIMATED = (".gif", ".webp", ".apng")
InputLike = str | PathLike[str] | np.ndarray | torch.Tensor | Image.Image


class Source(Protocol):
    """An ordered set of photos that are read when they are needed."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def __len__(self) -> int:
        """Number of photos."""
        ...

    def label(self, index: int) -> str:
        """What messages and exported files call a photo."""
        ...

    def file(self, index: int) -> Path | None:
        """The photo's own file, if it has one."""
        ...

    def origin(self, index: int) -> str | None:
        """Where a photo comes from, if it lies anywhere: its path, or a video's and the frame."""
        ...

    def read(self, indices: Sequence[int]) -> "Iterator[Pixels | Unreadable]":
        """Some photos in ascending order, upright RGB, or why one cannot be read."""
        ...


@dataclass(frozen=True)
class Unreadable:
    """A photo that cannot be used, and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class Files:
    """Photos in files."""

    name: str
    paths: list[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def label(self, index: int) -> str:
        """The file's name."""
        return readable(self.paths[index].name)

    def file(self, index: int) -> Path | None:
        """The file."""
        return self.paths[index]

    def origin(self, index: int) -> str | None:
        """The file's whole path."""
        return readable(str(self.paths[index].absolute()))

    def read(self, indices: Sequence[int]) -> Iterator[Pixels | Unreadable]:
        """Decodes one file after the other; failures are values, so that one bad file costs one photo."""
        for index in indices:
            path = self.paths[index]
            try:
                yield load_image(path)
            except (ValueError, OSError, ModuleNotFoundError) as error:
                yield Unreadable(readable(str(path)), readable(_reason(error, path)))


@dataclass(frozen=True)
class Frames:
    """Frames of a file that holds many, in order of presentation."""

    path: Path
    frames: Sized

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.path)

    def __len__(self) -> int:
        return len(self.frames)

    def label(self, index: int) -> str:
        """E.g. `walk_00042.png`."""
        return f"{readable(self.path.stem)}_{index:05d}.png"

    def file(self, index: int) -> Path | None:
        """None: a frame has no file of its own."""
        return None

    def origin(self, index: int) -> str | None:
        """The video's whole path and the number of the frame, from 0."""
        return f"{readable(str(self.path.absolute()))}, frame {index}"

    def read(self, indices: Sequence[int]) -> Iterator[Pixels | Unreadable]:
        """Decodes frames in order; after a damaged one, the rest is read anew."""
        wanted = list(indices)
        while wanted:
            try:
                for frame in self.decode(tuple(wanted)):
                    wanted.pop(0)
                    yield frame
            except ValueError as error:
                yield Unreadable(self.label(wanted.pop(0)), _reason(error, self.path))

    def decode(self, indices: Sequence[int]) -> Iterator[Pixels]:
        """Some frames in ascending order; raises ValueError at a damaged one."""
        raise NotImplementedError


@dataclass(frozen=True)
class Video(Frames):
    """Frames of a video file."""

    frames: FrameIndex

    def decode(self, indices: Sequence[int]) -> Iterator[Pixels]:
        """Some frames in ascending order; raises ValueError at a damaged one."""
        return read_frames(self.path, indices, index=self.frames)


@dataclass(frozen=True)
class Animation(Frames):
    """Frames of an animated image."""

    frames: range

    def decode(self, indices: Sequence[int]) -> Iterator[Pixels]:
        """Some frames in ascending order; raises ValueError at a damaged one."""
        return read_animation(self.path, indices)


@dataclass(frozen=True)
class Arrays:
    """Photos in memory."""

    images: list[Pixels] = field(repr=False)
    name: str = "images in memory"

    def __len__(self) -> int:
        return len(self.images)

    def label(self, index: int) -> str:
        """E.g. `image_003.png`."""
        return f"image_{index + 1:03d}.png"

    def file(self, index: int) -> Path | None:
        """None: there is no file."""
        return None

    def origin(self, index: int) -> str | None:
        """None: it is in memory only."""
        return None

    def read(self, indices: Sequence[int]) -> Iterator[Pixels | Unreadable]:
        """The arrays themselves."""
        return iter([self.images[index] for index in indices])


def gather(inputs: Sequence[Any] | InputLike) -> list[Source]:
    """Sources of what the user gave, in that order.

    Args:
        inputs: Image files (animated ones are short videos), folders of image files (in natural order), video
            files, uint8 arrays [h, w, 3] or
            [h, w], float arrays in [0, 1], tensors [3, h, w] in [0, 1], PIL images; one or many, also mixed.
            An array or tensor of four dimensions is many.

    Raises:
        FileNotFoundError: If a named file or folder does not exist.
        ValueError: If there is nothing, a folder has no images, an array is no image, or a path is a device
            or a pipe.
    """
    if isinstance(inputs, str | PathLike | Image.Image) or getattr(inputs, "ndim", 4) < 4:
        inputs = [inputs]  # one image, not an array of them
    sources: list[Source] = []
    for item in inputs:
        source = _path_source(Path(item)) if isinstance(item, str | PathLike) else Arrays([_pixels(item)])
        last = sources[-1] if sources else None
        if isinstance(source, Files) and isinstance(last, Files):
            sources[-1] = Files(f"{len(last) + len(source)} files", last.paths + source.paths)
        elif isinstance(source, Arrays) and isinstance(last, Arrays):
            sources[-1] = Arrays(last.images + source.images)
        else:
            sources.append(source)
    if not sources:
        raise ValueError("no input: expected image files, a folder of images or a video")
    return sources


def _path_source(path: Path) -> Source:
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not path.is_file():  # a pipe would be waited for, and can be read only once
        raise ValueError(f"{path}: neither a file nor a folder; write what it gives to a file first")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Video(path, index_frames(path))
    count = _moments(path)
    return Files(str(path), [path]) if count == 1 else Animation(path, range(count))


def _moments(path: Path) -> int:
    """Number of frames of an animated image; 1 for others, and for files of which reading will complain."""
    try:
        return num_frames(path)
    except (ValueError, OSError, ModuleNotFoundError):
        return 1


def _folder(path: Path) -> Files:
    images = list_images(path)
    others = [
        entry
        for entry in sorted(path.iterdir())
        if entry.is_file() and entry.suffix.lower() not in IMAGE_SUFFIXES and not entry.name.startswith(".")
    ]
    known = [(entry, advice) for entry in others if (advice := what_to_do(entry.name)) is not None]
    if not images:
        hint = next((f"; did you mean {sub}?" for sub in sorted(path.iterdir()) if _has_images(sub)), "")
        if known and not hint:
            entry, advice = known[0]
            hint = f", but {len(known)} such as {entry.name}: {advice}"
        raise ValueError(f"{path}: the folder holds no image files{hint}")
    for advice in dict.fromkeys(advice for _, advice in known):
        files = [entry.name for entry, own in known if own == advice]
        logger.warning("%s: %d files are ignored, e.g. %s: %s", path, len(files), files[0], advice)
    moving = [file.name for file in images if file.suffix.lower() in _OFTEN_ANIMATED and _moments(file) > 1]
    if moving:
        logger.warning(
            "%s: %d files are animated, e.g. %s: only the first picture of each is used; name the file "
            "itself for all of its pictures",
            *(path, len(moving), moving[0]),
        )
    if len(others) > len(known):
        logger.info("%s: %d files that are no images are ignored", path, len(others) - len(known))
    return Files(str(path), images)


def _has_images(path: Path) -> bool:
    if path.is_dir():
        return any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in path.iterdir())
    return path.suffix.lower() in VIDEO_SUFFIXES


def _pixels(image: np.ndarray | torch.Tensor | Image.Image) -> Pixels:
    """An image in memory as uint8 RGB."""
    if isinstance(image, Image.Image):
        return np.array(image.convert("RGB"))
    if isinstance(image, torch.Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"tensor image: expected shape [3, h, w], got {list(image.shape)}")
        image = image.detach().cpu().permute(1, 2, 0).numpy()
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None].repeat(3, -1)
    if array.ndim != 3 or array.shape[2] != 3 or min(array.shape[:2]) < 1:
        raise ValueError(f"array image: expected shape [h, w, 3] or [h, w], got {list(array.shape)}")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"array image: expected uint8, or floating point in [0, 1], got {array.dtype}")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"array image: expected values in [0, 1], got [{array.min():.3g}, {array.max():.3g}]"
        )
    return (array * 255).round().astype(np.uint8)


def readable(text: str) -> str:
    """Text that any file can hold: of a name that is no Unicode, the odd bytes are replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _reason(error: BaseException, path: Path) -> str:
    """The message without the path it begins with."""
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
    return re.sub(rf"^{re.escape(str(path))}:\s*", "", text)
