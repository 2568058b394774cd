"""Standard output and error that nobody need read: a closed pipe, or none at all, ends no work."""

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def patient_streams() -> Iterator[None]:
    """While this is entered, what nobody reads is thrown away: `nas3r --help | head -1`, `2>&-`.

    What a command writes to files is worth more than what it says, so a reader that went away is no reason to
    stop. A disk that is full is another matter: writing to one still raises.
    """
    _open_missing_descriptors()
    before = sys.stdout, sys.stderr
    with Path(os.devnull).open("w") as nowhere:
        sys.stdout, sys.stderr = (_Patient(stream or nowhere) for stream in before)  # pyright: ignore
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            sys.stdout, sys.stderr = before


def abandon(stream: Any) -> None:
    """Sends what is still to be written on a stream nowhere, also what the interpreter writes at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream without a descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _open_missing_descriptors() -> None:
    """Fills closed descriptors 0 to 2: the next file to be opened would be taken for one of them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


class _Patient:
    """A text stream whose reader may go away."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            abandon(self._stream)
        except UnicodeEncodeError:  # a console, or a file name, that is not Unicode
            encoding = getattr(self._stream, "encoding", None) or "ascii"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            abandon(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
