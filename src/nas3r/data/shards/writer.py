"""Clips into tars of limited size."""

import io
import json
import tarfile
from contextlib import ExitStack
from pathlib import Path

from nas3r.data.shards.cutting import CutClip
from nas3r.data.shards.options import ShardOptions
from nas3r.data.shards.records import VideoRecord
from nas3r.io.atomic import atomic_path

MEGABYTE = 10**6


class ShardWriter:
    """Writes clips into tars of limited size.

    Args:
        out: Folder.
        prefix: Of the names of tars and clips.
        options: Size of a tar.
        record: The tars are listed here.
        stack: Closes the last tar.
    """

    def __init__(
        self, out: Path, prefix: str, options: ShardOptions, record: VideoRecord, stack: ExitStack
    ) -> None:
        self._out, self._prefix, self._record, self._stack = out, prefix, record, stack
        self._limit = options.shard_megabytes * MEGABYTE
        self._tar: tarfile.TarFile | None = None
        self._written = 0

    def add(self, clip: CutClip) -> None:
        """Writes one clip."""
        if self._tar is None or self._written > self._limit:
            self._begin()
        name = f"{self._prefix}-{clip.first:07d}"
        for number, data in enumerate(clip.frames):
            self._file(f"{name}.{number:06d}.jpg", data)
        self._file(f"{name}.json", json.dumps(clip.description(self._record.video)).encode())
        self._record.shards[-1]["clips"].append({"name": name, "frames": len(clip.frames)})

    def _begin(self) -> None:
        self._stack.close()  # the tar before is complete
        name = f"{self._prefix}-{len(self._record.shards):03d}.tar"
        temporary = self._stack.enter_context(atomic_path(self._out / name))
        self._tar = self._stack.enter_context(tarfile.TarFile(temporary, "w"))
        self._written = 0
        self._record.shards.append({"name": name, "clips": []})

    def _file(self, name: str, data: bytes) -> None:
        assert self._tar is not None
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self._tar.addfile(entry, io.BytesIO(data))
        self._written += len(data)
