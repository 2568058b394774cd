"""`FinishedStages`: what a run has made so far; if it is killed, the next one goes on from there."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from nas3r import __version__
from nas3r.io.values import load_value, save_value
from nas3r.models import NAS3R

logger = logging.getLogger(__name__)

T = TypeVar("T")


class FinishedStages:
    """Stages in a folder, under a key that says what they were made from.

    Args:
        folder: Where they are kept; None to keep nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._key = ""

    def begin(self, *made_from: Any) -> None:
        """Says what the stages that follow are made from; before it is called nothing is kept.

        Args:
            made_from: Models, arrays, tensors, what prints alike if it is alike, and lists of these.
        """
        digest = hashlib.sha256(__version__.encode())
        if self.folder is not None:
            for thing in made_from:
                _take(digest.update, thing)
        self._key = digest.hexdigest()[:16]

    def of(self, name: str, kind: type[T], make: Callable[[], T]) -> T:
        """What an earlier run made of a stage; else what is made now, which is then kept.

        Args:
            name: Of the stage.
            kind: Of what it makes.
            make: Makes it.
        """
        if self.folder is None or not self._key:
            return make()
        path = self.folder / f"{name}-{self._key}.npz"
        if path.exists():
            try:
                value = load_value(path, kind)
            except (ValueError, OSError) as error:
                logger.warning("a finished stage of an earlier run is made again: %s", error)
            else:
                logger.info("%s: an earlier run had finished it", name)
                return value
        value = make()
        try:
            save_value(path, value)
        except OSError as error:  # it only saves time
            logger.warning("%s: a finished stage could not be kept (%s)", path, error.strerror or error)
        return value

    @contextmanager
    def kept_if_stopped(self) -> Iterator[None]:
        """Removes what is kept when the block ends, unless the user or the system stops it."""
        try:
            yield
        except KeyboardInterrupt:
            if self.folder is not None and self.folder.exists():
                logger.warning("what was finished is in %s: the same command goes on from there", self.folder)
            raise
        except BaseException:
            self._remove()
            raise
        self._remove()

    def _remove(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _take(update: Callable[[bytes], None], thing: Any) -> None:
    if isinstance(thing, NAS3R):
        update(repr(thing.config).encode())
        for value in thing.state_dict().values():
            update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(thing, Tensor):
        _take(update, thing.detach().cpu().numpy())
    elif isinstance(thing, np.ndarray):
        update(f"{thing.shape} {thing.dtype}".encode())
        update(np.ascontiguousarray(thing).tobytes())
    elif isinstance(thing, list | tuple):
        for part in thing:
            _take(update, part)
    else:
        update(repr(thing).encode())
