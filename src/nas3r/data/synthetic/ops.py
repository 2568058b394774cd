"""Arithmetic that reads the same for torch tensors and for numbers inside a compiled kernel.

The formulas of shapes, textures and light are written once, with these functions and Python's operators.
Called from Python they work on tensors; called from a Numba kernel the overloads below take their place, so
that the fast CPU kernel and the torch renderer evaluate the very same source. `@formula` marks such
functions.
"""

import math
from typing import Any

import numpy as np
import torch
from numba.extending import overload, register_jitable

formula: Any = register_jitable  # untyped: arguments are tensors or numbers


def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, else `b`; both are always evaluated."""
    return torch.where(condition, a, b)


def floor(x: Any) -> Any:
    """Largest whole number not above `x`."""
    return torch.floor(x)


def sqrt(x: Any) -> Any:
    """Square root; 0 for negative rounding errors."""
    return torch.sqrt(torch.clamp_min(x, 0.0))


def minimum(a: Any, b: Any) -> Any:
    """The smaller one; `b` may be a plain number."""
    return torch.minimum(a, b) if isinstance(b, torch.Tensor) else torch.clamp_max(a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger one; `b` may be a plain number."""
    return torch.maximum(a, b) if isinstance(b, torch.Tensor) else torch.clamp_min(a, b)


def to_int(x: Any) -> Any:
    """Whole numbers as 64-bit integers."""
    return x.long()


def pending(condition: Any) -> bool:
    """Whether a search must go on; for tensors always (asking would cost a device synchronisation)."""
    return True


@overload(where)
def _where(condition, a, b):
    def implementation(condition, a, b):
        return a if condition else b

    return implementation


@overload(floor)
def _floor(x):
    def implementation(x):
        return np.floor(x)

    return implementation


@overload(sqrt)
def _sqrt(x):
    def implementation(x):
        return math.sqrt(max(x, 0.0))

    return implementation


@overload(minimum)
def _minimum(a, b):
    def implementation(a, b):
        return a if a < b else b

    return implementation


@overload(maximum)
def _maximum(a, b):
    def implementation(a, b):
        return a if a > b else b

    return implementation


@overload(pending)
def _pending(condition):
    def implementation(condition):
        return condition

    return implementation


@overload(to_int)
def _to_int(x):
    def implementation(x):
        return np.int64(x)

    return implementation


@formula
def clamp01(x):
    """`x` limited to [0, 1]."""
    return minimum(maximum(x, 0.0), 1.0)


@formula
def mix(a, b, weight):
    """Linear blend, `a` at weight 0 and `b` at weight 1."""
    return a + (b - a) * weight


@formula
def wave(x):
    """A smooth odd wave of period 1 and range [-1, 1]: parabolas instead of a sine, several times cheaper."""
    s = 2.0 * (x - floor(x)) - 1.0
    return -4.0 * s * (1.0 - abs(s))


@formula
def random_unit(ix, iy, seed):
    """A number in [0, 1) that looks random, from whole numbers (integer tensors or integers).

    Multiply and fold, with masks that keep 64-bit products from overflowing, so that tensors on any device
    and compiled numbers agree to the bit.
    """
    h = (ix * 374761393 + iy * 668265263 + seed * 1442695041) & 0x7FFFFFFF
    h = ((h ^ (h >> 15)) * 1274126177) & 0x7FFFFFFF
    h = ((h ^ (h >> 13)) * 1103515245) & 0x7FFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF) * (1.0 / 16777216.0)
