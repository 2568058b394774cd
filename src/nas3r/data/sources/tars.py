"""Tar shards with webdataset names, on a disk or streamed from a web server.

A clip is one webdataset sample: its frames are `CLIP.000000.jpg`, `CLIP.000001.jpg`, ..., beside an optional
`CLIP.json` (which may hold `travel`, see `nas3r.data.analysis`). Tars with one folder per clip,
`CLIP/0001.jpg`, are read too. An `index.json` in the folder lists the clips of each shard, so that a corpus
opens at once:

    {"shards": [{"name": "a.tar", "clips": [{"name": "walk", "frames": 120}, ...]}, ...]}
"""

import logging
import os
import re
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from nas3r.data.order import WindowedOrder
from nas3r.data.parts import Part
from nas3r.data.sources.decoding import DecodedClip, FrameStore
from nas3r.data.sources.rejection import Rejection
from nas3r.data.sources.shard_files import LocalShards, RemoteShards, default_cache
from nas3r.io.images import IMAGE_SUFFIXES, decode_image, natural_key
from nas3r.io.json_files import as_object, parse_json, reading_fields

logger = logging.getLogger(__name__)

INDEX_NAME = "index.json"
WINDOW = 4  # shards whose clips are shuffled together
_OPEN_SHARDS = 16
_SAFE_NAME = re.compile(r"\w[\w.+-]*\.tar")


@dataclass(frozen=True)
class ShardEntry:
    """A shard as the index lists it.

    Attributes:
        name: File name.
        clips: Name and number of frames of each clip.
    """

    name: str
    clips: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Piece:
    """Where a file lies in a tar."""

    offset: int
    size: int


@dataclass(frozen=True)
class ShardClip:
    """A clip as it lies in a tar: its frames in order, and its description if it has one."""

    name: str
    frames: tuple[Piece, ...]
    description: Piece | None


class Shard:
    """An open tar whose files can be read in any order and from several threads.

    Raises:
        ValueError: The file is no plain tar, or is cut short.
        OSError: The file is missing or may not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                members = {m.name: Piece(m.offset_data, m.size) for m in tar if m.isreg()}
        except (
            tarfile.TarError,
            OSError,
            ValueError,
            OverflowError,
        ) as error:  # damaged sizes
            self._file.close()
            raise ValueError(f"{path}: not a readable tar ({error})") from error
        end = os.fstat(self._file.fileno()).st_size
        if any(piece.size < 0 or piece.offset + piece.size > end for piece in members.values()):
            self._file.close()
            raise ValueError(f"{path}: the file is cut short")
        self.clips = _group(members)

    def read(self, piece: Piece) -> bytes:
        """The bytes of one file."""
        return os.pread(self._file.fileno(), piece.size, piece.offset)


class TarClip(DecodedClip):
    """The frames of one clip of a shard.

    Args:
        shard: The tar.
        clip: Its place there.
        store: Where decoded frames are kept, and how small.
    """

    def __init__(self, shard: Shard, clip: ShardClip, store: FrameStore) -> None:
        super().__init__(clip.name, len(clip.frames), store, (shard.path, clip.name))
        self._shard, self._clip = shard, clip

    @property
    def description(self) -> dict[str, Any]:
        """What the shard says about the clip; empty if nothing."""
        if self._clip.description is None:
            return {}
        name = f"{self._shard.path}, {self.name}, description"
        values = parse_json(self._shard.read(self._clip.description), name)
        return values if isinstance(values, dict) else {}

    @property
    def travel(self) -> np.ndarray | None:
        """Path length of the image content up to each frame as recorded, or None."""
        recorded = self.description.get("travel")
        if recorded is None:
            return None
        travel = np.asarray(recorded, dtype=np.float64)
        if travel.shape != (len(self),) or not np.isfinite(travel).all():
            raise ValueError(f"{self._shard.path}, {self.name}: expected travel of {len(self)} frames")
        return travel

    def _decode(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for i in indices:
            yield i, decode_image(self._shard.read(self._clip.frames[i]), f"{self.name}, frame {i}")


class TarSource:
    """The clips of a set of shards; a `ClipSource` that is visited a few shards at a time.

    From a web server, only the shards of the current and the next window lie on the disk; the next ones are
    fetched while the current ones are in use. Where training is, and so what to fetch, follows from the step
    alone: there is no state to save.

    Args:
        location: A `.tar`, a folder of them, or the http(s) address of a folder that holds an `index.json`.
        store: Where decoded frames are kept, and how small.
        cache_folder: Where fetched shards are put; default: the user's cache folder.
        window: Number of shards whose clips are shuffled together.
        part: Only this part of the shards; all if None.

    Raises:
        ValueError: A shard or the index is damaged, or an address has no index.
        OSError: A file is missing or cannot be fetched.
    """

    def __init__(
        self,
        location: Path | str,
        store: FrameStore | None = None,
        cache_folder: Path | None = None,
        window: int = WINDOW,
        part: Part | None = None,
    ) -> None:
        self._store = store or FrameStore()
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self.rejected: list[Rejection] = []
        self._files = _shard_files(location, cache_folder, keep=2 * window)
        index = self._files.index_text()
        if index is not None:
            self._entries = parse_index(index, f"{location}/{INDEX_NAME}")
            self._files.use([entry.name for entry in self._entries])
        else:
            self._entries = [self._scan(number) for number in range(len(self._files))]
        if part is not None and part.of > 1:
            entries = [entry for number, entry in enumerate(self._entries) if part.holds(number)]
            if not entries:
                raise ValueError(f"{location}: {len(self._entries)} shards leave none for part {part}")
            self._entries = entries
            self._files.use([entry.name for entry in entries])
        sizes = [len(entry.clips) for entry in self._entries]
        if not sum(sizes) and self.rejected:
            raise ValueError(f"{location}: no shard can be read: {self.rejected[0].reason}")
        for rejection in self.rejected:
            logger.warning("%s is left out: %s", rejection.name, rejection.reason)
        if not sum(sizes):
            raise ValueError(
                f"{location}: the shards hold no clips; expected names like CLIP.000000.jpg or CLIP/0000.jpg"
            )
        self._order = WindowedOrder(sizes, window)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> TarClip:
        """One clip.

        Raises:
            ValueError: Its shard is damaged or differs from the index.
            OSError: Its shard cannot be read or fetched.
        """
        group, place = self._order.group_of(index), self._order.place_in_group(index)
        shard, entry = self._shard(group), self._entries[group]
        if len(shard.clips) != len(entry.clips) or shard.clips[place].name != entry.clips[place][0]:
            raise ValueError(f"{shard.path}: does not hold the clips that {INDEX_NAME} lists")
        return TarClip(shard, shard.clips[place], self._store)

    def index_at(self, position: int, seed: int) -> int:
        """Index of the clip that is visited at a position; see `WindowedOrder`."""
        self._files.expect(self._order.groups_from(position, seed))
        return self._order.index_at(position, seed)

    def _shard(self, number: int) -> Shard:
        with self._lock:
            if number not in self._open:
                self._open[number] = Shard(self._files.path(number))
                while len(self._open) > _OPEN_SHARDS:
                    self._open.popitem(last=False)  # its file closes once no clip uses it any more
            self._open.move_to_end(number)
            return self._open[number]

    def _scan(self, number: int) -> ShardEntry:
        path = self._files.path(number)
        try:
            clips = Shard(path).clips
        except (ValueError, OSError) as error:
            self.rejected.append(Rejection(path.name, str(error)))
            clips = ()
        return ShardEntry(path.name, tuple((clip.name, len(clip.frames)) for clip in clips))


def parse_index(text: str, name: str) -> list[ShardEntry]:
    """The shards that an `index.json` lists.

    Raises:
        ValueError: It has another structure, or a shard's name is not a plain file name.
    """
    content = as_object(parse_json(text, name), name)
    with reading_fields(name, "index of shards"):
        entries = [
            ShardEntry(
                str(shard["name"]), tuple((str(clip["name"]), int(clip["frames"])) for clip in shard["clips"])
            )
            for shard in content["shards"]
        ]
    for entry in entries:
        if not _SAFE_NAME.fullmatch(entry.name):
            raise ValueError(f"{name}: expected plain file names of shards, got {entry.name!r}")
    return entries


def _shard_files(location: Path | str, cache_folder: Path | None, keep: int) -> LocalShards | RemoteShards:
    if isinstance(location, Path):
        return LocalShards(location)
    return RemoteShards(location, cache_folder or default_cache(location), keep)


def _group(members: dict[str, Piece]) -> tuple[ShardClip, ...]:
    """Clips in the order in which they first appear in the tar."""
    frames: dict[str, list[tuple[str, Piece]]] = {}
    for name, piece in members.items():
        clip, frame = _clip_and_frame(PurePosixPath(name))
        if clip:
            frames.setdefault(clip, []).append((frame, piece))
    return tuple(
        ShardClip(
            clip,
            tuple(piece for _, piece in sorted(pieces, key=lambda item: natural_key(item[0]))),
            members.get(f"{clip}.json"),
        )
        for clip, pieces in frames.items()
    )


def _clip_and_frame(path: PurePosixPath) -> tuple[str, str]:
    """`CLIP.FRAME.jpg` or `CLIP/FRAME.jpg` to clip and frame; two empty strings for anything else."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return "", ""
    clip, _, frame = path.stem.partition(".")
    folder = str(path.parent) if path.parent != PurePosixPath(".") else ""
    if frame and "." not in frame:
        return (f"{folder}/{clip}" if folder else clip), frame
    return (folder, clip) if folder and not frame else ("", "")
