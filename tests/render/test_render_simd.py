"""The vector type of the kernels against NumPy."""

import numba
import numpy as np

from nas3r.render.cpu.kernels import simd


@numba.njit
def arithmetic(a, b, out):
    x, y = simd.load(a, 0), simd.load(b, 0)
    simd.store(out, 0, x + y)
    simd.store(out, 8, x * 2 - y)
    simd.store(out, 16, 1 / x)
    simd.store(out, 24, simd.fma(x, y, 1.0))
    simd.store(out, 32, simd.minimum(x, y))
    simd.store(out, 40, simd.maximum(x, 0.5))
    simd.store(out, 48, simd.sqrt(x * x))
    simd.store(out, 56, simd.select((x >= y) & (x > 0), x, -1.0))
    simd.store(out, 64, simd.select((x <= y) & (x < 0.5), y, simd.broadcast(2)))
    simd.store(out, 72, simd.lane_indices())


def test_arithmetic():
    a, b = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    out = np.empty((10, 8), np.float32)
    arithmetic(a, b, out)
    expected = [
        a + b, a * 2 - b, 1 / a, a * b + 1, np.minimum(a, b), np.maximum(a, 0.5), abs(a),
        np.where((a >= b) & (a > 0), a, -1), np.where((a <= b) & (a < 0.5), b, 2), np.arange(8),
    ]  # fmt: skip
    # One rounding more or less, where a multiplication and an addition are fused.
    np.testing.assert_allclose(out, np.stack(expected), rtol=1e-6, atol=1e-6)


@numba.njit
def reductions(a, out, each):
    x = simd.load(a, 8)
    out[0] = simd.sum_lanes(x)
    out[1] = simd.count_lanes(x > 0)
    out[2] = simd.any_lane(x > 100)
    low = simd.load(a, 0), simd.load(a, 8), simd.load(a, 16), simd.load(a, 24)
    high = simd.load(a, 32), simd.load(a, 40), simd.load(a, 48), simd.load(a, 56)
    simd.store(each, 0, simd.sum_each(*low, *high))


def test_reductions():
    a = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
    out, each = np.empty(3, np.float32), np.empty(8, np.float32)
    reductions(a, out, each)
    np.testing.assert_allclose(out, [a[1].sum(), (a[1] > 0).sum(), 0], rtol=1e-5)
    np.testing.assert_allclose(each, a.sum(1), rtol=1e-5, atol=1e-6)


@numba.njit
def transpose(source, target):
    simd.transpose(source, 3, 11, target, 1, 9)


def test_transpose():
    source = np.random.default_rng(2).normal(size=3 + 8 * 11).astype(np.float32)
    target = np.zeros(1 + 8 * 9, np.float32)
    transpose(source, target)
    rows = source[3:].reshape(8, 11)[:, :8]
    assert np.array_equal(target[1:].reshape(8, 9)[:, :8], rows.T)


@numba.njit
def transcendental(values, exponentials, logarithms):
    for i in range(0, len(values), 8):
        simd.store(exponentials, i, simd.exp2(simd.load(values, i)))
        simd.store(logarithms, i, simd.log2(simd.load(exponentials, i)))


def test_transcendental_functions():
    values = np.linspace(-126, 127, 1 << 16, dtype=np.float32)
    exponentials, logarithms = np.empty_like(values), np.empty_like(values)
    transcendental(values, exponentials, logarithms)
    unit = 2.0**-23
    assert (abs(exponentials / np.exp2(values.astype(np.float64)) - 1) <= 2 * unit).all()
    expected = np.log2(exponentials.astype(np.float64))
    assert (abs(logarithms - expected) <= 2 * unit * np.maximum(abs(expected), 1)).all()


@numba.njit
def integers(values, out):
    simd.store_as_int(out, 0, simd.load(values, 0))
    return simd.bits_of(values[0])


def test_integers():
    values = np.array([1.9, 2.0, 0.1, -0.5, 7.999, 3, 4, 5], np.float32)
    out = np.empty(8, np.int32)
    assert integers(values, out) == values[:1].view(np.uint32)[0]
    assert out.tolist() == np.trunc(values).tolist()
