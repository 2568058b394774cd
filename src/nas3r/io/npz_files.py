"""NPZ files that strangers may have made: never unpickled, never larger than they are."""

import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_MOST_INFLATION = 1100  # deflate makes at most 1032 bytes of one, and headers are small


def read_arrays(path: Path | str, names: Sequence[str], what: str) -> list[np.ndarray]:
    """Arrays of numbers of an NPZ file.

    Args:
        path: The file.
        names: Of the arrays.
        what: What messages call the file.

    Raises:
        ValueError: If the file is damaged, an array is missing, holds no numbers, or claims more than is
            stored.
        OSError: If it is missing or may not be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return [_array(file, name) for name in names]
    except (KeyError, ValueError, TypeError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path}: not a {what} written by nas3r ({error})") from error
    except (zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise ValueError(f"{path}: not a {what}, or a damaged one ({error})") from error


def has_array(path: Path | str, name: str) -> bool:
    """Whether a file is an archive that lists such an array."""
    try:
        with zipfile.ZipFile(path) as file:
            return f"{name}.npy" in file.namelist()
    except zipfile.BadZipFile:
        return False


def array_names(path: Path | str) -> list[str]:
    """Names of the arrays of a file.

    Raises:
        ValueError: If the file is no archive.
        OSError: If it is missing or may not be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist()]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not an archive of arrays, or a damaged one ({error})") from error


def _array(file: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an NPZ file, if its header agrees with what is stored: a few bytes can claim terabytes."""
    entry = file.getinfo(f"{name}.npy")
    with file.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
        if read is None:
            raise ValueError("an array of another version")
        shape, _, dtype = read(stream)
    claimed = math.prod(shape) * dtype.itemsize
    if (
        dtype.kind not in "fiub"
        or claimed > entry.file_size
        or entry.file_size > _MOST_INFLATION * entry.compress_size
    ):
        raise ValueError(f"an array claims {claimed} bytes, more than are stored for it")
    with file.open(entry) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)
