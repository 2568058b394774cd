"""Random numbers that depend on a seed and a place in the program, and on nothing else."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from numba import njit
from numba.extending import register_jitable
from torch import Tensor

_MASK = 0x7FFFFFFF


@register_jitable
def _mixed(h: Any) -> Any:
    """Multiply and fold within 31 bits, so that products fit 64; for integers and integer tensors."""
    h = ((h ^ (h >> 15)) * 1274126177) & _MASK
    h = ((h ^ (h >> 13)) * 1103515245) & _MASK
    return h ^ (h >> 16)


def combine(*parts: int) -> int:
    """One 62-bit seed from several whole numbers, e.g. (source seed, index)."""
    words = []
    for h in (17, 71):
        for part in parts:
            for word in (part & _MASK, (part >> 31) & _MASK):
                h = _mixed((h * 69069 + word + 12345) & _MASK)
        words.append(h)
    return words[0] << 31 | words[1]


@njit(cache=True)
def _fill_uniform(low_key, high_key, count, low, high, out):
    """Hashes (keys of a seed, place in its stream) to numbers in [low, high)."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            word = _mixed(((count + j) * 40503 + low_key[i]) & _MASK) ^ high_key[i]
            out[i, j] = low + (high - low) * ((_mixed(word) & 0xFFFFFF) / 16777216.0)


class Draws:
    """A stream of draws for every seed of a batch; the n-th draw of a seed is the same in any batch.

    Args:
        seed: [b], non-negative, below 2^62.
        stream: Keeps draws for different purposes apart.
    """

    def __init__(self, seed: Int[Tensor, "b"], stream: int = 0) -> None:
        self.seed = seed
        self._low = _mixed((seed & _MASK) ^ (stream * 7919 + 1))
        self._high = _mixed((seed >> 31 & _MASK) ^ (stream * 104729 + 3))
        self._count = 0

    def __len__(self) -> int:
        """Number of seeds."""
        return len(self.seed)

    def pick(self, index: Int[Tensor, "n"]) -> "Draws":
        """The streams of some of the seeds, from here on."""
        picked = Draws.__new__(Draws)
        picked.seed, picked._count = self.seed[index], self._count
        picked._low, picked._high = self._low[index], self._high[index]
        return picked

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Float[Tensor, "b *shape"]:
        """Uniform in [low, high)."""
        n = math.prod(shape)
        out = torch.empty(len(self), *shape)
        _fill_uniform(self._low.numpy(), self._high.numpy(), self._count, low, high, out.view(-1, n).numpy())
        self._count += n
        return out

    def log_uniform(self, *shape: int, low: float, high: float) -> Float[Tensor, "b *shape"]:
        """Uniform in the logarithm, in [low, high)."""
        return self.uniform(*shape, low=math.log(low), high=math.log(high)).exp()

    def normal(self, *shape: int) -> Float[Tensor, "b *shape"]:
        """Standard normal (Box-Muller)."""
        radius = (-2 * (1 - self.uniform(*shape)).clamp_min(1e-9).log()).sqrt()
        return radius * (2 * math.pi * self.uniform(*shape)).cos()

    def chance(self, probability: float, *shape: int) -> Tensor:
        """True with this probability [b, *shape]."""
        return self.uniform(*shape) < probability

    def sign(self, *shape: int) -> Float[Tensor, "b *shape"]:
        """-1 or 1."""
        return torch.where(self.chance(0.5, *shape), 1.0, -1.0)

    def choice(self, values: Sequence[int], weights: Sequence[float], *shape: int) -> Int[Tensor, "b *shape"]:
        """One of the values, with relative weights."""
        edges = torch.tensor(list(itertools.accumulate(weights)))
        index = torch.searchsorted(edges, self.uniform(*shape, high=float(edges[-1])), right=True)
        return torch.tensor(values)[index.clamp_max(len(values) - 1)]

    def direction(self, *shape: int) -> Float[Tensor, "b *shape 3"]:
        """Uniform on the sphere."""
        z = self.uniform(*shape, low=-1.0)
        angle = self.uniform(*shape, high=2 * math.pi)
        r = (1 - z * z).clamp_min(0).sqrt()
        return torch.stack([r * angle.cos(), r * angle.sin(), z], -1)
