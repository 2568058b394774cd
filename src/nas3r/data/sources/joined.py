"""Several sources as one."""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

from nas3r.data.clips import Clip, ClipSource
from nas3r.data.order import ClipOrder, ShuffledOrder
from nas3r.data.sampling import ORDER, random_generator
from nas3r.data.sources.rejection import Rejection

_FINEST = 1000  # weights are rounded to fractions with denominators up to this


class JoinedSource:
    """The clips of several sources, each visited in its own order.

    Turns come in rounds: in a round each source has as many turns as its share, in random order, so that
    shares are kept exactly, wherever a run is resumed.

    Args:
        sources: At least one.
        shares: Turns of each source in a round; by default its number of clips, which visits all clips
            equally often.
        origins: Which data set each source belongs to, by number; by default each is its own.
    """

    def __init__(
        self,
        sources: Sequence[ClipSource],
        shares: Sequence[int] | None = None,
        origins: Sequence[int] | None = None,
    ) -> None:
        self._sources = list(sources)
        sizes = [len(source) for source in sources]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._shares = np.asarray(sizes if shares is None else shares)
        self._origins = list(range(len(self._sources)) if origins is None else origins)
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
        number = self._source_of(index)
        return self._sources[number][int(index - self._starts[number])]

    def origin(self, index: int) -> int:
        """Number of the data set that a clip is of."""
        return self._origins[self._source_of(index)]

    def index_at(self, position: int, seed: int) -> int:
        """Index of the clip that is visited at a position."""
        epoch, place = divmod(position, int(self._shares.sum()))
        whose, turn = self._turns(epoch, seed)
        number = int(whose[place])
        own = epoch * int(self._shares[number]) + int(turn[place])
        return int(self._starts[number]) + self._orders[number].index_at(own, seed)

    def _source_of(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def _plan(self, epoch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Whose turn it is at each position of a round, and which of its turns."""
        shares = self._shares
        whose = random_generator(ORDER, seed, epoch).permutation(np.repeat(np.arange(len(shares)), shares))
        turn = np.zeros_like(whose)
        for number, share in enumerate(shares):
            turn[whose == number] = np.arange(share)
        return whose, turn


def whole_shares(weights: Sequence[float]) -> list[int]:
    """The smallest whole numbers in the proportion of the weights, to a thousandth.

    Raises:
        ValueError: If a weight is not positive.
    """
    if not all(math.isfinite(weight) and weight >= 1 / _FINEST for weight in weights):
        raise ValueError(f"expected weights of at least {1 / _FINEST}, got {', '.join(map(str, weights))}")
    fractions = [Fraction(weight).limit_denominator(_FINEST) for weight in weights]
    common = math.lcm(*(fraction.denominator for fraction in fractions))
    shares = [int(fraction * common) for fraction in fractions]
    return [share // math.gcd(*shares) for share in shares]
