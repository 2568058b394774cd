"""Small numbers and products of eight triples at a time."""

import numpy as np

from nas3r.render.cpu.kernels.compile import helper
from nas3r.render.cpu.kernels.simd import fma, maximum

ZERO, HALF, ONE, TWO = (np.float32(x) for x in (0, 0.5, 1, 2))


@helper
def absolute(x):
    """|x|."""
    return maximum(x, ZERO - x)


@helper
def dot(a0, a1, a2, b0, b1, b2):
    """Scalar product."""
    return fma(a2, b2, fma(a1, b1, a0 * b0))


@helper
def cross(a, b):
    """Vector product of two triples."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
