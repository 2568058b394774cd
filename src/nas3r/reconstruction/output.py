"""A result folder that appears complete or not at all."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MANIFEST = "reconstruction.json"


@contextmanager
def output_folder(folder: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary sibling folder that takes the place of `folder` when the block succeeds.

    If the block raises (a full disk and Ctrl-C included), the temporary folder is removed and an earlier
    result stays as it was. The temporary folder is made at once, so that a missing permission shows before
    the work and not after it.

    Args:
        folder: Where the result goes.
        overwrite: Replace an earlier result. Anything else is never deleted.

    Yields:
        The folder to write to.

    Raises:
        FileExistsError: If `folder` is a file, or holds files and `overwrite` is not set, or holds files that
            are no earlier result.
        OSError: If the folder cannot be made.
    """
    folder = Path(folder).absolute()
    if folder.is_symlink():
        folder = folder.resolve()
    check_output(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    staging, retired = (folder.with_name(f".{folder.name}.{token}{kind}") for kind in ("", ".old"))
    staging.mkdir()
    try:
        yield staging
        _swap(staging, folder, retired)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Raises FileExistsError if a result must not be written there."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder}: a file of that name exists; name a folder")
    if not any(folder.iterdir()):
        return
    if not (folder / MANIFEST).is_file():
        raise FileExistsError(f"{folder}: the folder holds files that are no nas3r result; name another one")
    if not overwrite:
        raise FileExistsError(f"{folder}: holds an earlier result; name another folder, or pass --overwrite")


def _swap(staging: Path, folder: Path, retired: Path) -> None:
    """Renames the earlier result away and the new one into place; undoes the first if the second fails."""
    if not folder.exists():
        staging.rename(folder)
        return
    folder.rename(retired)
    try:
        staging.rename(folder)
    except BaseException:
        retired.rename(folder)
        raise
