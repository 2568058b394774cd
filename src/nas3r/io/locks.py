"""Locks that end with their process: they tell leftovers of dead processes from work under way."""

import os
from pathlib import Path


def lock(path: Path, *, create: bool = False) -> int | None:
    """Locks a file or folder for this process.

    Args:
        path: Of it.
        create: Make the file first.

    Returns:
        A descriptor to close in the end; None if a living process holds the lock, it is not there, or the
        system or file system has no locks (on Windows, what is left behind stays).
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        return None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDONLY, 0o666)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
