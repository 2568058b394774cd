"""Steps from Gaussians to their footprints in an image, which the pass forward and the way back both take.

The twin is `nas3r.render.projection`, which says where they come from.
"""

import numpy as np

from nas3r.render.cpu.kernels.arithmetic import HALF, ONE, TWO, ZERO, absolute, cross, dot
from nas3r.render.cpu.kernels.compile import helper
from nas3r.render.cpu.kernels.lanes import (
    CENTER,
    MEAN,
    OPACITY,
    PARAMETERS,
    QUAT,
    ROTATION,
    SCALE,
    TRANSLATION,
    take3,
)
from nas3r.render.cpu.kernels.simd import LANES, broadcast, fma, maximum, select, sqrt, transpose
from nas3r.render.projection import FOV_MARGIN, LOW_PASS, MAX_MAGNITUDE, MIN_QUAT_SIZE

_LOW_PASS = np.float32(LOW_PASS)
_MARGIN = np.float32(0.5 * FOV_MARGIN)
_MAX = np.float32(MAX_MAGNITUDE)
_MIN_SIZE = np.float32(MIN_QUAT_SIZE)


@helper
def read_gaussians(means, quats, scales, opacities, scene, first, count, rows, lanes):
    """Lanes of the parameters of up to eight Gaussians; `rows` is room to work in."""
    for i in range(count):
        at = i * PARAMETERS
        for c in range(3):
            rows[at + MEAN + c] = means[scene, first + i, c]
            rows[at + SCALE + c] = scales[scene, first + i, c]
        for c in range(4):
            rows[at + QUAT + c] = quats[scene, first + i, c]
        rows[at + OPACITY] = opacities[scene, first + i]
    transpose(rows, 0, PARAMETERS, lanes, 0, LANES)
    transpose(rows, 8, PARAMETERS, lanes, 8 * LANES, LANES)


@helper
def unit(w, x, y, z):
    """Quaternions of length one and the inverse of their length, which is 0 for (nearly) zero ones."""
    size = maximum(maximum(absolute(w), absolute(x)), maximum(absolute(y), absolute(z)))
    scale = ONE / maximum(size, _MIN_SIZE)  # first, for the square of a length might overflow
    w, x, y, z = w * scale, x * scale, y * scale, z * scale
    inverse = select(size < _MIN_SIZE, ZERO, ONE / sqrt(maximum(w * w + x * x + y * y + z * z, HALF)))
    return w * inverse, x * inverse, y * inverse, z * inverse, inverse * scale


@helper
def to_rotation(w, x, y, z):
    """Entries of rotation matrices, row by row; a quaternion of (nearly) zero length is no rotation."""
    w, x, y, z, inverse = unit(w, x, y, z)
    s = select(inverse > ZERO, TWO, ZERO)
    return (
        ONE - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y),
        s * (x * y + w * z), ONE - s * (x * x + z * z), s * (y * z - w * x),
        s * (x * z - w * y), s * (y * z + w * x), ONE - s * (x * x + y * y),
    )  # fmt: skip


@helper
def rotation_of_camera(cameras, scene, view):
    """World-to-camera rotation, row by row."""
    return (
        *_triple_of_camera(cameras, scene, view, ROTATION),
        *_triple_of_camera(cameras, scene, view, ROTATION + 3),
        *_triple_of_camera(cameras, scene, view, ROTATION + 6),
    )


@helper
def _triple_of_camera(cameras, scene, view, i):
    return cameras[scene, view, i], cameras[scene, view, i + 1], cameras[scene, view, i + 2]


@helper
def to_camera(lanes, cameras, scene, view, near):
    """Points in camera coordinates, replaced by (0, 0, 1) where culled, and which are not."""
    mx, my, mz = take3(lanes, MEAN)
    r = rotation_of_camera(cameras, scene, view)
    t = _triple_of_camera(cameras, scene, view, TRANSLATION)
    x = dot(mx, my, mz, broadcast(r[0]), broadcast(r[1]), broadcast(r[2])) + t[0]
    y = dot(mx, my, mz, broadcast(r[3]), broadcast(r[4]), broadcast(r[5])) + t[1]
    z = dot(mx, my, mz, broadcast(r[6]), broadcast(r[7]), broadcast(r[8])) + t[2]
    sideways = maximum(absolute(x), absolute(y))
    in_front = (z > near) & (z < _MAX) & (sideways < _MAX)
    return select(in_front, x, ZERO), select(in_front, y, ZERO), select(in_front, z, ONE), in_front


@helper
def limits(fx, fy, cx, cy, height, width):
    """Range of x / z and of y / z where the Jacobian follows the point: (low x, high x, low y, high y)."""
    return (
        (-cx - _MARGIN * width) / fx,
        (width - cx + _MARGIN * width) / fx,
        (-cy - _MARGIN * height) / fy,
        (height - cy + _MARGIN * height) / fy,
    )


@helper
def jacobian(tx, ty, iz, fx, fy, skew):
    """Nonzero entries (xx, xy, xz, yy, yz) of the derivative of pixels with respect to camera coordinates."""
    return iz * fx, iz * skew, (tx * -fx - ty * skew) * iz, iz * fy, ty * -fy * iz


@helper
def jacobian_times_rotation(j, r):
    """Rows of the derivative of pixels with respect to world coordinates."""
    j0, j1, j2, j3, j4 = j
    u = (
        fma(j2, r[6], fma(j1, r[3], j0 * r[0])),
        fma(j2, r[7], fma(j1, r[4], j0 * r[1])),
        fma(j2, r[8], fma(j1, r[5], j0 * r[2])),
    )
    v = fma(j4, r[6], j3 * r[3]), fma(j4, r[7], j3 * r[4]), fma(j4, r[8], j3 * r[5])
    return u, v


@helper
def times_axes(u, rotation):
    """Product of a row vector and the principal axes, which are the columns of the rotation."""
    q = rotation
    return (
        dot(u[0], u[1], u[2], q[0], q[3], q[6]),
        dot(u[0], u[1], u[2], q[1], q[4], q[7]),
        dot(u[0], u[1], u[2], q[2], q[5], q[8]),
    )


@helper
def footprint(a, b, s0, s1, s2):
    """Rows of the 2 x 3 root of the projected covariance, zero where it overflows, and where it does not."""
    f0, f1, f2, g0, g1, g2 = a[0] * s0, a[1] * s1, a[2] * s2, b[0] * s0, b[1] * s1, b[2] * s2
    ok = dot(f0, f1, f2, f0, f1, f2) + dot(g0, g1, g2, g0, g1, g2) < _MAX * _MAX
    f = select(ok, f0, ZERO), select(ok, f1, ZERO), select(ok, f2, ZERO)
    return f, (select(ok, g0, ZERO), select(ok, g1, ZERO), select(ok, g2, ZERO)), ok


@helper
def covariance(f, g):
    """Projected covariance with low-pass (xx, xy, yy), and its determinant from the footprint's minors."""
    xx, xy, yy = (
        dot(f[0], f[1], f[2], f[0], f[1], f[2]),
        dot(f[0], f[1], f[2], g[0], g[1], g[2]),
        dot(g[0], g[1], g[2], g[0], g[1], g[2]),
    )
    m0, m1, m2 = cross(f, g)
    determinant = dot(m0, m1, m2, m0, m1, m2) + (xx + yy) * _LOW_PASS + _LOW_PASS * _LOW_PASS
    return xx + _LOW_PASS, xy, yy + _LOW_PASS, determinant


@helper
def direction(lanes, cameras, scene, view, in_front):
    """Unit vectors from the camera centre to the means, and the inverse distance."""
    mx, my, mz = take3(lanes, MEAN)
    cx, cy, cz = _triple_of_camera(cameras, scene, view, CENTER)
    dx, dy, dz = (
        select(in_front, mx - cx, ZERO),
        select(in_front, my - cy, ZERO),
        select(in_front, mz - cz, ONE),
    )
    inverse = ONE / sqrt(dot(dx, dy, dz, dx, dy, dz))
    return dx * inverse, dy * inverse, dz * inverse, inverse
