"""In which order the clips of a source are visited, addressable by position so that a run resumes anywhere.

A source may bring its own order by offering `index_at(position, seed)`; otherwise every epoch is a new random
permutation.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np

from nas3r.data.sampling import ORDER, random_generator


@runtime_checkable
class ClipOrder(Protocol):
    """A sequence of clip indices without end."""

    def index_at(self, position: int, seed: int) -> int:
        """Index of the clip at a position; a function of the arguments alone."""
        ...


class SequentialOrder:
    """One clip after the other, over and over: for sources whose clips are random already.

    Args:
        count: Number of clips, at least 1.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def index_at(self, position: int, seed: int) -> int:
        """Index of the clip at a position; the seed changes nothing."""
        return position % self._count


class ShuffledOrder:
    """A new random permutation of all clips in every epoch.

    Args:
        count: Number of clips, at least 1.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def index_at(self, position: int, seed: int) -> int:
        """Index of the clip at a position."""
        epoch, place = divmod(position, self._count)
        return int(self._permutation(epoch, seed)[place])

    def _permute(self, epoch: int, seed: int) -> np.ndarray:
        return random_generator(ORDER, seed, epoch).permutation(self._count)


class WindowedOrder:
    """Shuffles groups of clips (shards, chunks), then clips within a window of a few groups.

    This is the shuffle buffer of streaming readers made addressable: at any time only the groups of one
    window are visited, so that a corpus larger than a disk needs no more than these at hand.

    Args:
        sizes: Number of clips of each group; clip indices count through the groups in order.
        window: Number of groups shuffled together.
    """

    def __init__(self, sizes: Sequence[int], window: int) -> None:
        if window < 1 or sum(sizes) < 1:
            raise ValueError(f"expected a window of at least one group and some clips, got {window}, {sizes}")
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._window = window
        self._plan = lru_cache(maxsize=2)(self._plan_epoch)

    def __len__(self) -> int:
        """Number of clips in all groups."""
        return int(self._starts[-1])

    def index_at(self, position: int, seed: int) -> int:
        """Index of the clip at a position."""
        epoch, place = divmod(position, len(self))
        return int(self._plan(epoch, seed)[0][place])

    def group_of(self, index: int) -> int:
        """The group that a clip belongs to."""
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def place_in_group(self, index: int) -> int:
        """Position of a clip within its group."""
        return int(index - self._starts[self.group_of(index)])

    def groups_from(self, position: int, seed: int) -> list[int]:
        """The groups of the window at a position and of the next window, in the order of their use."""
        epoch, place = divmod(position, len(self))
        windows, ends = self._plan(epoch, seed)[1:]
        current = int(np.searchsorted(ends, place, side="right"))
        following = windows[current + 1] if current + 1 < len(windows) else self._plan(epoch + 1, seed)[1][0]
        return [int(group) for group in (*windows[current], *following)]

    def _clips_of(self, group: int) -> np.ndarray:
        return np.arange(int(self._starts[group]), int(self._starts[group + 1]))

    def _plan_epoch(self, epoch: int, seed: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """Clip indices in order of use, groups of each window, and where each window ends."""
        rng = random_generator(ORDER, seed, epoch)
        groups = rng.permutation(len(self._sizes))
        windows = [groups[i : i + self._window] for i in range(0, len(groups), self._window)]
        clips = [
            rng.permutation(np.concatenate([self._clips_of(int(group)) for group in window]))
            for window in windows
        ]
        return np.concatenate(clips), windows, np.cumsum([len(part) for part in clips])
