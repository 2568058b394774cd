"""Several sources as one."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from nas3r.data.clips import Clip, ClipSource
from nas3r.data.order import ClipOrder, ShuffledOrder
from nas3r.data.sampling import ORDER, random_generator
from nas3r.data.sources.rejection import Rejection


class JoinedSource:
    """The clips of several sources, visited in proportion to their numbers, each source in its own order.

    Args:
        sources: At least one.
    """

    def __init__(self, sources: Sequence[ClipSource]) -> None:
        self._sources = list(sources)
        self._starts = np.concatenate([[0], np.cumsum([len(source) for source in sources])])
        self._orders: list[ClipOrder] = [
            source if isinstance(source, ClipOrder) else ShuffledOrder(len(source)) for source in sources
        ]
        self._turns = lru_cache(maxsize=2)(self._plan)

    @property
    def rejected(self) -> list[Rejection]:
        """What the sources leave out."""
        return [rejection for source in self._sources for rejection in getattr(source, "rejected", ())]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Clip:
        """One clip."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._sources[number][int(index - self._starts[number])]

    def index_at(self, position: int, seed: int) -> int:
        """Index of the clip that is visited at a position."""
        epoch, place = divmod(position, len(self))
        whose, turn = self._turns(epoch, seed)
        number = int(whose[place])
        own = epoch * len(self._sources[number]) + int(turn[place])
        return int(self._starts[number]) + self._orders[number].index_at(own, seed)

    def _plan(self, epoch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Whose turn it is at each position of an epoch, and which of its turns."""
        sizes = np.diff(self._starts)
        whose = random_generator(ORDER, seed, epoch).permutation(np.repeat(np.arange(len(sizes)), sizes))
        turn = np.zeros_like(whose)
        for number, size in enumerate(sizes):
            turn[whose == number] = np.arange(size)
        return whose, turn
