"""Folders of image files: every folder that directly holds images is one clip."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nas3r.data.sources.decoding import DecodedClip, FrameStore
from nas3r.data.sources.rejection import Rejection
from nas3r.io.images import is_depth_like, list_images, load_image, natural_key

MIN_FRAMES = 3  # two context views and a target


class FolderClip(DecodedClip):
    """The images of one folder in natural order of their names.

    Args:
        name: Of the clip.
        files: Its frames in order.
        store: Where decoded frames are kept, and how small.
    """

    def __init__(self, name: str, files: Sequence[Path], store: FrameStore) -> None:
        super().__init__(name, len(files), store, files[0] if files else name)
        self._files = files

    def _decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for i in indices:
            yield i, load_image(self._files[i])


class FolderSource:
    """All clips below a folder; a `ClipSource`.

    Folders with fewer than three images are left out, and so are depth maps (one channel of 16 bits); both
    are listed in `rejected`.

    Args:
        path: The folder; it may hold images itself.
        store: Where decoded frames are kept, and how small.

    Raises:
        OSError: The folder is missing or may not be read.
    """

    def __init__(self, path: Path, store: FrameStore | None = None) -> None:
        store = store or FrameStore()
        self.rejected: list[Rejection] = []
        self._clips: list[FolderClip] = []
        for folder in _folders(path):
            files = list_images(folder)
            name = path.name if folder == path else str(folder.relative_to(path))
            reason = _unusable(files)
            if reason:
                self.rejected.append(Rejection(name, reason))
            elif files:
                self._clips.append(FolderClip(name, files, store))

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> FolderClip:
        """One clip."""
        return self._clips[index]


def _folders(path: Path) -> list[Path]:
    """The folder and all below it, in natural order, without hidden ones; links are not followed."""
    found = []
    for folder, below, _ in os.walk(path):
        below[:] = sorted((name for name in below if not name.startswith(".")), key=natural_key)
        found.append(Path(folder))
    return found


def _unusable(files: Sequence[Path]) -> str:
    """Why a folder with images is no clip; empty if it is one or has no images."""
    if not files:
        return ""
    if len(files) < MIN_FRAMES:
        return f"fewer than {MIN_FRAMES} images"
    try:
        return "depth maps or masks, not photos" if is_depth_like(files[0]) else ""
    except (ValueError, OSError):
        return ""  # one bad file; the others may be good, and reading reports it
