"""Files that appear complete or not at all."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas3r.io.locks import lock

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}(\.\w+)?")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary sibling of `path` that takes its place when the block succeeds.

    If the block raises (a full disk and Ctrl-C included), the temporary file is removed and whatever was at
    `path` before is untouched. The temporary name keeps the suffix of `path`, which some writers look at.

    Args:
        path: Where the finished file goes; missing parent folders are created.

    Yields:
        The temporary path to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    held = lock(temporary, create=True)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        if held is not None:
            os.close(held)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of processes that were killed while they wrote into a folder of ours."""
    for path in folder.glob(".*"):
        if _TEMPORARY.fullmatch(path.name) and (held := lock(path)) is not None:
            path.unlink(missing_ok=True)
            os.close(held)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Writes a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    write_bytes(path, text.encode())
