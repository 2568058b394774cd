"""Colours from spherical harmonics, and the way back; the twin is `nas3r.render.spherical_harmonics`."""

import numpy as np

from nas3r.render.cpu.kernels.arithmetic import HALF, ONE, ZERO, dot
from nas3r.render.cpu.kernels.compile import helper
from nas3r.render.cpu.kernels.lanes import COEFFICIENTS, put, put3, take, take3
from nas3r.render.cpu.kernels.simd import LANES, broadcast, fma, transpose
from nas3r.render.spherical_harmonics import SH0, SH1, SH2, SH3

_SH0, _SH1 = np.float32(SH0), np.float32(SH1)
_SH2A, _SH2B, _SH2C = (np.float32(x) for x in SH2)
_SH3A, _SH3B, _SH3C, _SH3D, _SH3E = (np.float32(x) for x in SH3)


@helper
def read_harmonics(sh, scene, first, count, degree, rows, lanes):
    """Lanes of the coefficients of up to eight Gaussians; `rows` is room to work in."""
    used = 3 * (degree + 1) ** 2
    for i in range(count):
        for c in range(used):
            rows[i * COEFFICIENTS + c] = sh[scene, first + i, c]
    for c in range(0, used, LANES):
        transpose(rows, c, COEFFICIENTS, lanes, c * LANES, LANES)


@helper
def write_harmonics(grad_sh, scene, first, count, degree, lanes, rows):
    """The way back of `read_harmonics`; degrees that were not evaluated get zeros."""
    used = 3 * (degree + 1) ** 2
    for c in range(0, used, LANES):
        transpose(lanes, c * LANES, LANES, rows, c, COEFFICIENTS)
    for i in range(count):
        for c in range(used):
            grad_sh[scene, first + i, c] = rows[i * COEFFICIENTS + c]
        for c in range(used, grad_sh.shape[2]):
            grad_sh[scene, first + i, c] = 0


@helper
def harmonics(degree, x, y, z, basis):
    """Values of the spherical harmonics; the twin is `sh_basis`."""
    put(basis, 0, broadcast(_SH0))
    if degree >= 1:
        put(basis, 1, y * -_SH1)
        put(basis, 2, z * _SH1)
        put(basis, 3, x * -_SH1)
    if degree >= 2:
        put(basis, 4, x * y * _SH2A)
        put(basis, 5, y * z * -_SH2A)
        put(basis, 6, z * z * (3 * _SH2B) - _SH2B)
        put(basis, 7, x * z * -_SH2A)
        put(basis, 8, (x * x - y * y) * _SH2C)
    if degree >= 3:
        five = z * z * np.float32(5)
        put(basis, 9, y * (x * x * np.float32(3) - y * y) * -_SH3A)
        put(basis, 10, x * y * z * _SH3B)
        put(basis, 11, y * (five - ONE) * -_SH3C)
        put(basis, 12, z * (five - np.float32(3)) * _SH3D)
        put(basis, 13, x * (five - ONE) * -_SH3C)
        put(basis, 14, z * (x * x - y * y) * _SH3E)
        put(basis, 15, x * (x * x - y * y * np.float32(3)) * -_SH3A)


@helper
def harmonics_slopes(degree, x, y, z, slopes):
    """Derivatives (d/dx, d/dy, d/dz) of the basis functions after the first."""
    zero = broadcast(ZERO)
    if degree >= 1:
        put3(slopes, 3 * 1, zero, broadcast(-_SH1), zero)
        put3(slopes, 3 * 2, zero, zero, broadcast(_SH1))
        put3(slopes, 3 * 3, broadcast(-_SH1), zero, zero)
    if degree >= 2:
        put3(slopes, 3 * 4, y * _SH2A, x * _SH2A, zero)
        put3(slopes, 3 * 5, zero, z * -_SH2A, y * -_SH2A)
        put3(slopes, 3 * 6, zero, zero, z * (6 * _SH2B))
        put3(slopes, 3 * 7, z * -_SH2A, zero, x * -_SH2A)
        put3(slopes, 3 * 8, x * (2 * _SH2C), y * (-2 * _SH2C), zero)
    if degree >= 3:
        xy, yz, xz, difference = x * y, y * z, x * z, x * x - y * y
        ring = (z * z * np.float32(5) - ONE) * -_SH3C
        put3(slopes, 3 * 9, xy * (-6 * _SH3A), difference * (-3 * _SH3A), zero)
        put3(slopes, 3 * 10, yz * _SH3B, xz * _SH3B, xy * _SH3B)
        put3(slopes, 3 * 11, zero, ring, yz * (-10 * _SH3C))
        put3(slopes, 3 * 12, zero, zero, (z * z * np.float32(15) - np.float32(3)) * _SH3D)
        put3(slopes, 3 * 13, ring, zero, xz * (-10 * _SH3C))
        put3(slopes, 3 * 14, xz * (2 * _SH3E), yz * (-2 * _SH3E), difference * _SH3E)
        put3(slopes, 3 * 15, difference * (-3 * _SH3A), xy * (6 * _SH3A), zero)


@helper
def to_color(degree, basis, sh_lanes):
    """RGB before the clamp at zero."""
    red = green = blue = broadcast(HALF)
    for k in range((degree + 1) ** 2):
        value = take(basis, k)
        r, g, b = take3(sh_lanes, 3 * k)
        red, green, blue = fma(value, r, red), fma(value, g, green), fma(value, b, blue)
    return red, green, blue


@helper
def color_backward(degree, basis, slopes, sh_lanes, red, green, blue, sh_grads):
    """From gradients of the colours: adds those of the coefficients, returns those of the direction."""
    x = y = z = broadcast(ZERO)
    for k in range((degree + 1) ** 2):
        value = take(basis, k)
        r, g, b = take3(sh_grads, 3 * k)
        put3(sh_grads, 3 * k, fma(value, red, r), fma(value, green, g), fma(value, blue, b))
        if k > 0:
            pull = dot(red, green, blue, *take3(sh_lanes, 3 * k))
            dx, dy, dz = take3(slopes, 3 * k)
            x, y, z = fma(pull, dx, x), fma(pull, dy, y), fma(pull, dz, z)
    return x, y, z
