"""Clips into tars of limited size, with webdataset names."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from nas3r.io.atomic import atomic_path

MEGABYTE = 10**6


class ShardWriter:
    """Writes clips into tars; use it in a `with` block. Each tar appears when it is complete.

    Args:
        out: Folder of the tars.
        prefix: Of their names; a number and `.tar` are added.
        megabytes: Size at which another tar is begun.

    Attributes:
        shards: File names, each with the name and number of frames of its clips, as in an `index.json`.
    """

    def __init__(self, out: Path, prefix: str, megabytes: int) -> None:
        self.shards: list[dict[str, Any]] = []
        self._out, self._prefix, self._limit = out, prefix, megabytes * MEGABYTE
        self._stack = ExitStack()
        self._tar: tarfile.TarFile | None = None
        self._written = 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)  # removes the last tar if something went wrong

    def add(
        self,
        name: str,
        frames: Sequence[bytes],
        description: dict[str, Any],
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Writes one clip.

        Args:
            name: Of the clip, without dots.
            frames: Image files in order.
            description: What to say about it, as JSON.
            files: What else belongs to it, by the end of its name, as "cameras.json".
        """
        if self._tar is None or self._written > self._limit:
            self._begin()
        for number, data in enumerate(frames):
            self._file(f"{name}.{number:06d}.{_suffix(data)}", data)
        self._file(f"{name}.json", json.dumps(description).encode())
        for end, data in (files or {}).items():
            self._file(f"{name}.{end}", data)
        self.shards[-1]["clips"].append({"name": name, "frames": len(frames)})

    def _begin(self) -> None:
        self._stack.close()  # the tar before is complete
        name = f"{self._prefix}-{len(self.shards):03d}.tar"
        temporary = self._stack.enter_context(atomic_path(self._out / name))
        self._tar = self._stack.enter_context(tarfile.TarFile(temporary, "w"))
        self._written = 0
        self.shards.append({"name": name, "clips": []})

    def _file(self, name: str, data: bytes) -> None:
        assert self._tar is not None
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self._tar.addfile(entry, io.BytesIO(data))
        self._written += len(data)


def _suffix(image: bytes) -> str:
    """What the name of an image file ends in, by its content."""
    if image.startswith(b"\x89PNG"):
        return "png"
    return "webp" if image[8:12] == b"WEBP" else "jpg"
