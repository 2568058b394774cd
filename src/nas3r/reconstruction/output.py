"""A result folder that appears complete or not at all, and never takes along what is not ours."""

import contextlib
import ctypes
import errno
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas3r.io.json_files import read_object
from nas3r.io.locks import lock
from nas3r.stopping import raise_if_stopped

logger = logging.getLogger(__name__)

MANIFEST = "reconstruction.json"
FORMAT = "nas3r-reconstruction"


@dataclass(frozen=True)
class Kind:
    """What marks a folder as one that was written here.

    Attributes:
        name: What people call such a folder.
        manifest: File with an object whose `format` tells ours from those of other tools, and whose `files`
            are what was written.
        format: That word.
    """

    name: str
    manifest: str
    format: str


RESULT = Kind("result", MANIFEST, FORMAT)

# What results of versions that did not list their files may hold.
_KNOWN_FILES = (
    *("scene.ply", "scene.splat", "scene.spz", "points.ply", "cameras.json", "transforms.json"),
    *("flythrough.mp4", "report.html", "adapted.safetensors", MANIFEST),
)
_KNOWN_FOLDERS = ("images", "depth", "sparse/0")
_SWAP = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS


@contextmanager
def output_folder(folder: Path | str, *, overwrite: bool = False, kind: Kind = RESULT) -> Iterator[Path]:
    """A temporary sibling folder that takes the place of `folder` when the block succeeds.

    If the block raises (a full disk and Ctrl-C included), the temporary folder is removed and an earlier
    result stays as it was. The temporary folder is made at once, so that a missing permission shows before
    the work and not after it. What killed processes left behind is tidied up first.

    Of an earlier result only the files that it lists as its own go. Whatever else lies in the folder stays.

    Args:
        folder: Where the result goes.
        overwrite: Replace an earlier result. Anything else is never deleted.
        kind: What is written.

    Yields:
        The folder to write to.

    Raises:
        FileExistsError: If `folder` is a file, or holds files and `overwrite` is not set, or holds files that
            are no earlier result, or one of yours under a name that the new result needs.
        OSError: If the folder cannot be made.
    """
    folder = _place(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _tidy_up(folder, kind)
    check_output(folder, overwrite=overwrite, kind=kind)
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.unfinished")
    staging.mkdir()
    held = lock(staging)
    try:
        yield staging
        check_output(folder, overwrite=overwrite, kind=kind)  # another run may have finished meanwhile
        _keep_what_is_not_ours(folder, staging, kind)
        _flush(staging)
        raise_if_stopped()
        _put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if held is not None:
            os.close(held)


def stages_folder(folder: Path | str) -> Path:
    """Where a run keeps what it has finished on its way to a result in `folder`."""
    folder = _place(folder)
    return folder.with_name(f".{folder.name}.stages")


def _place(folder: Path | str) -> Path:
    """Where a folder really is: what replaces it is made beside it."""
    folder = Path(folder).absolute()
    return folder.resolve() if folder.is_symlink() else folder


def check_output(folder: Path, *, overwrite: bool, inputs: Sequence[Path] = (), kind: Kind = RESULT) -> None:
    """Raises FileExistsError if a result must not be written there, ValueError if an input lies inside."""
    real = folder.resolve()
    for path in inputs:
        if path.exists() and path.resolve().is_relative_to(real):
            raise ValueError(
                f"{path}: lies inside the {kind.name} folder {folder}; name another {kind.name} folder"
            )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder}: a file of that name exists; name a folder")
    if not any(folder.iterdir()):
        return
    if not is_ours(folder, kind):
        raise FileExistsError(
            f"{folder}: the folder holds files that are no nas3r {kind.name}; name another one"
        )
    if not overwrite:
        raise FileExistsError(
            f"{folder}: holds an earlier {kind.name}; name another folder, or pass --overwrite"
        )


def is_ours(folder: Path, kind: Kind = RESULT) -> bool:
    """Whether a folder is marked as one of ours; other tools write a file of that name too."""
    return _manifest(folder, kind).get("format") == kind.format


def written_files(folder: Path) -> list[str]:
    """Paths of all files in a folder, relative to it, as the manifest lists them."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )


def _manifest(folder: Path, kind: Kind) -> dict[str, Any]:
    try:
        return read_object(folder / kind.manifest)
    except (OSError, ValueError):
        return {}


def _was_written(path: str, listed: Sequence[str] | None, kind: Kind) -> bool:
    """Whether an earlier result has written a file.

    Args:
        path: Relative to its folder.
        listed: What it lists; None for a result of a version that did not.
        kind: What it is.
    """
    if path == kind.manifest:
        return True
    if listed is not None:
        return path in listed
    return path in _KNOWN_FILES or path.rpartition("/")[0] in _KNOWN_FOLDERS


def _keep_what_is_not_ours(folder: Path, staging: Path, kind: Kind) -> None:
    """Gives what else lies in the folder a second name in the one that will replace it."""
    if not folder.is_dir():
        return
    files = _manifest(folder, kind).get("files")
    listed = files if isinstance(files, list) else None
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                (staging / relative).mkdir(parents=True, exist_ok=True)
            continue
        if _was_written(relative.as_posix(), listed, kind):
            continue
        target = staging / relative
        if target.exists() or target.is_symlink():
            raise FileExistsError(
                f"{path}: is not part of the earlier {kind.name}, but the new one needs its name"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(path.readlink())
            continue
        try:
            os.link(path, target)
        except OSError:  # a file system without hard links
            shutil.copy2(path, target)


def _put_in_place(staging: Path, folder: Path) -> None:
    """Exchanges both folders in one step where the system can; the earlier one is then in `staging`."""
    if not folder.exists():
        staging.rename(folder)
    elif not _exchange(staging, folder):
        # Two steps. `_tidy_up` puts the earlier result back if the process dies between them.
        retired = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.earlier")
        folder.rename(retired)
        try:
            staging.rename(folder)
        except BaseException:
            retired.rename(folder)
            raise
        shutil.rmtree(retired, ignore_errors=True)
    _flush_entry(folder.parent)


def _exchange(a: Path, b: Path) -> bool:
    """Swaps the names of two folders; False where the system cannot."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = library.renamex_np(os.fsencode(a), os.fsencode(b), _SWAP)
        else:
            at_cwd = -100
            failed = library.renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), _SWAP)
    except (OSError, AttributeError, TypeError):
        return False
    if failed and ctypes.get_errno() in (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(b))
    return not failed


def _tidy_up(folder: Path, kind: Kind) -> None:
    """Removes unfinished results of dead processes, and brings back an earlier one that was left aside."""
    for path in folder.parent.glob(f".{_literal(folder.name)}.*.unfinished"):
        held = lock(path)
        if held is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(held)
    for path in folder.parent.glob(f".{_literal(folder.name)}.*.earlier"):
        if folder.exists():
            shutil.rmtree(path, ignore_errors=True)
        elif is_ours(path, kind):
            logger.warning("%s: brought back the earlier result, after a run that was killed", folder)
            path.rename(folder)


def _literal(name: str) -> str:
    """A name as a pattern that matches nothing else."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _flush(folder: Path) -> None:
    """Everything in a folder to the disk, before it takes the place of something else."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            _flush_entry(path)
    _flush_entry(folder)


def _flush_entry(path: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can, and nothing depends on it but a crash
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
