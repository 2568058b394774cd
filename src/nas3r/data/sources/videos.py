"""Video files as they are: every file is one clip.

For more than a few videos cut them into shards first (`nas3r data shard`): that finds the shot cuts, and
reading a JPEG is far cheaper than decoding a video up to the frame wanted.
"""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nas3r.data.sources.decoding import DecodedClip, FrameStore
from nas3r.io.images import Resize, natural_key
from nas3r.io.video import VIDEO_SUFFIXES, FrameIndex, index_frames, read_frames, video_info


class VideoClip(DecodedClip):
    """The frames of one video.

    If all frames, scaled down, fit into half of the cache they are decoded together at first use; of longer
    videos only the frames wanted are, from the keyframe before them on.

    Args:
        name: Of the clip.
        path: Of the file.
        store: Where decoded frames are kept, and how small.

    Raises:
        ValueError: The file is empty, damaged or holds no video.
        OSError: The file is missing or may not be read.
    """

    def __init__(self, name: str, path: Path, store: FrameStore) -> None:
        self._path = path
        self._index: FrameIndex = index_frames(path)
        super().__init__(name, len(self._index), store, path)
        info = video_info(path)
        width, height = info.width, info.height
        if store.cover is not None:
            width, height = Resize(width, height, store.cover[1], store.cover[0]).scaled_size
        self._max_size = max(height, width)  # of larger frames the decoder makes just that
        self._fits = 3 * height * width * len(self) <= store.cache.capacity / 2
        self._lock = threading.Lock()

    def _decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        with self._lock:  # two threads that need the same video would do the work twice
            if self._fits:
                yield from enumerate(read_frames(self._path, max_size=self._max_size, threads=1))
            else:
                frames = read_frames(self._path, indices, self._max_size, index=self._index, threads=1)
                yield from zip(indices, frames)


class VideoSource:
    """Video files below a folder, or a single one, opened when they are first asked for; a `ClipSource`.

    Args:
        path: A video file or a folder that is searched for them.
        store: Where decoded frames are kept, and how small.
    """

    def __init__(self, path: Path, store: FrameStore | None = None) -> None:
        self._path, self._store = path, store or FrameStore()
        self._files = [path] if path.is_file() else list_videos(path)
        self._clips: dict[int, VideoClip] = {}

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> VideoClip:
        """One video.

        Raises:
            ValueError: The file is empty, damaged or holds no video.
            OSError: The file may not be read.
        """
        if index not in self._clips:
            file = self._files[index]
            name = file.name if file == self._path else str(file.relative_to(self._path))
            self._clips[index] = VideoClip(name, file, self._store)
        return self._clips[index]


def list_videos(folder: Path) -> list[Path]:
    """Video files anywhere below a folder, in natural order."""
    files = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(files, key=lambda path: natural_key(str(path.relative_to(folder))))
