"""Projection of Gaussians to the table of splats, and its derivative: eight Gaussians at a time.

The same mathematics as `nas3r.render.projection` and `spherical_harmonics`, which say where it comes from and
are the twins that these kernels are tested against.

Gaussians are handled in blocks of eight. Their parameters are transposed into lanes: `lanes[8 * i]` starts
the eight values of parameter i. Blocks form chunks; gradients of the cameras are added per chunk, so that the
order of the sum does not depend on the threads.
"""

import numpy as np

from nas3r.render.cpu.kernels.columns import COLUMNS
from nas3r.render.cpu.kernels.compile import helper, kernel
from nas3r.render.cpu.kernels.simd import (
    LANES,
    broadcast,
    fma,
    load,
    log2,
    maximum,
    minimum,
    select,
    sqrt,
    store,
    sum_lanes,
    transpose,
)
from nas3r.render.projection import FOV_MARGIN, LOW_PASS, MAX_MAGNITUDE, MIN_ALPHA, MIN_QUAT_SIZE
from nas3r.render.spherical_harmonics import SH0, SH1, SH2, SH3

CHUNK = 512  # Gaussians
PARAMETERS = 16  # floats kept of each Gaussian: mean 3, quaternion 4, scales 3, opacity 1, padding
COEFFICIENTS = 48  # of the spherical harmonics, at most: 16 basis functions, 3 colours
CAMERA = (
    20  # floats of a camera: world-to-camera rotation 9 and translation 3, fx, fy, skew, cx, cy, centre 3
)

_ZERO, _HALF, _ONE, _TWO = (np.float32(x) for x in (0, 0.5, 1, 2))
_LOW_PASS = np.float32(LOW_PASS)
_MARGIN = np.float32(0.5 * FOV_MARGIN)
_MAX = np.float32(MAX_MAGNITUDE)
_MIN_ALPHA = np.float32(MIN_ALPHA)
_LOG2_MIN_ALPHA = np.float32(np.log2(MIN_ALPHA))
_2_LN_2 = np.float32(2 * np.log(2))
_MIN_SIZE = np.float32(MIN_QUAT_SIZE)
_SH0, _SH1 = np.float32(SH0), np.float32(SH1)
_SH2A, _SH2B, _SH2C = (np.float32(x) for x in SH2)
_SH3A, _SH3B, _SH3C, _SH3D, _SH3E = (np.float32(x) for x in SH3)


@kernel
def project(
    start, stop, means, quats, scales, opacities, sh, cameras, near, height, width, degree, table, finite
):
    """Fills the table of splats for chunks start..stop.

    Args:
        start: First chunk, counted over scenes.
        stop: Chunk after the last.
        means: [b, n, 3].
        quats: [b, n, 4].
        scales: [b, n, 3].
        opacities: [b, n].
        sh: [b, n, k, 3].
        cameras: [b, v, CAMERA].
        near: Centres not beyond this depth are culled.
        height: Of the images, float32.
        width: Of the images, float32.
        degree: Highest degree evaluated.
        table: Written [b, v, n, COLUMNS].
        finite: Written for each chunk: whether its parameters are [b * chunks].
    """
    n, views = means.shape[1], cameras.shape[1]
    chunks = -(-n // CHUNK)
    rows, lanes = np.zeros(LANES * PARAMETERS, np.float32), np.empty(LANES * PARAMETERS, np.float32)
    sh_rows, sh_lanes = np.zeros(LANES * COEFFICIENTS, np.float32), np.empty(LANES * COEFFICIENTS, np.float32)
    basis = np.empty(LANES * 16, np.float32)
    out, out_rows = np.zeros(LANES * COLUMNS, np.float32), np.empty(LANES * COLUMNS, np.float32)
    for task in range(start, stop):
        scene, chunk = task // chunks, task % chunks
        check = broadcast(_ZERO)
        for first in range(chunk * CHUNK, min((chunk + 1) * CHUNK, n), LANES):
            count = min(LANES, n - first)
            _read_gaussians(means, quats, scales, opacities, scene, first, count, rows, lanes)
            _read_harmonics(sh, scene, first, count, degree, sh_rows, sh_lanes)
            check = check + _times_zero(lanes, 11) + _times_zero(sh_lanes, 3 * (degree + 1) ** 2)
            rotation = _rotation(load(lanes, 24), load(lanes, 32), load(lanes, 40), load(lanes, 48))
            for view in range(views):
                _project_block(
                    lanes, rotation, sh_lanes, cameras, scene, view, near, height, width, degree, basis, out
                )
                transpose(out, 0, LANES, out_rows, 0, COLUMNS)
                transpose(out, 8 * LANES, LANES, out_rows, 8, COLUMNS)
                at = ((scene * views + view) * n + first) * COLUMNS
                for i in range(count):
                    store(table, at + i * COLUMNS, load(out_rows, i * COLUMNS))
                    store(table, at + i * COLUMNS + 8, load(out_rows, i * COLUMNS + 8))
        finite[task] = sum_lanes(check) == _ZERO


@helper
def _read_gaussians(means, quats, scales, opacities, scene, first, count, rows, lanes):
    for i in range(count):
        at = i * PARAMETERS
        for c in range(3):
            rows[at + c] = means[scene, first + i, c]
            rows[at + 7 + c] = scales[scene, first + i, c]
        for c in range(4):
            rows[at + 3 + c] = quats[scene, first + i, c]
        rows[at + 10] = opacities[scene, first + i]
    transpose(rows, 0, PARAMETERS, lanes, 0, LANES)
    transpose(rows, 8, PARAMETERS, lanes, 8 * LANES, LANES)


@helper
def _read_harmonics(sh, scene, first, count, degree, rows, lanes):
    used = 3 * (degree + 1) ** 2
    for i in range(count):
        for c in range(used):
            rows[i * COEFFICIENTS + c] = sh[scene, first + i, c]
    for c in range(0, used, LANES):
        transpose(rows, c, COEFFICIENTS, lanes, c * LANES, LANES)


@helper
def _times_zero(lanes, parameters):
    """Zero times the sum of the parameters: NaN if one is not finite."""
    total = broadcast(_ZERO)
    for i in range(parameters):
        total = total + load(lanes, i * LANES) * _ZERO
    return total


@helper
def _unit(w, x, y, z):
    """Quaternions of length one and the inverse of their length, which is 0 for (nearly) zero ones."""
    size = maximum(maximum(_absolute(w), _absolute(x)), maximum(_absolute(y), _absolute(z)))
    scale = _ONE / maximum(size, _MIN_SIZE)  # first, for the square of a length might overflow
    w, x, y, z = w * scale, x * scale, y * scale, z * scale
    inverse = select(size < _MIN_SIZE, _ZERO, _ONE / sqrt(maximum(w * w + x * x + y * y + z * z, _HALF)))
    return w * inverse, x * inverse, y * inverse, z * inverse, inverse * scale


@helper
def _absolute(x):
    return maximum(x, _ZERO - x)


@helper
def _rotation(w, x, y, z):
    """Entries of rotation matrices, row by row; a quaternion of (nearly) zero length is no rotation."""
    w, x, y, z, inverse = _unit(w, x, y, z)
    s = select(inverse > _ZERO, _TWO, _ZERO)
    return (
        _ONE - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y),
        s * (x * y + w * z), _ONE - s * (x * x + z * z), s * (y * z - w * x),
        s * (x * z - w * y), s * (y * z + w * x), _ONE - s * (x * x + y * y),
    )  # fmt: skip


@helper
def _dot(a0, a1, a2, b0, b1, b2):
    return fma(a2, b2, fma(a1, b1, a0 * b0))


@helper
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@helper
def _matrix_of_camera(cameras, scene, view):
    """World-to-camera rotation, row by row."""
    return (
        cameras[scene, view, 0], cameras[scene, view, 1], cameras[scene, view, 2],
        cameras[scene, view, 3], cameras[scene, view, 4], cameras[scene, view, 5],
        cameras[scene, view, 6], cameras[scene, view, 7], cameras[scene, view, 8],
    )  # fmt: skip


@helper
def _to_camera(lanes, cameras, scene, view, near):
    """Points in camera coordinates, replaced by (0, 0, 1) where culled, and which are not."""
    mx, my, mz = load(lanes, 0), load(lanes, 8), load(lanes, 16)
    r = _matrix_of_camera(cameras, scene, view)
    x = _dot(mx, my, mz, broadcast(r[0]), broadcast(r[1]), broadcast(r[2])) + cameras[scene, view, 9]
    y = _dot(mx, my, mz, broadcast(r[3]), broadcast(r[4]), broadcast(r[5])) + cameras[scene, view, 10]
    z = _dot(mx, my, mz, broadcast(r[6]), broadcast(r[7]), broadcast(r[8])) + cameras[scene, view, 11]
    sideways = maximum(_absolute(x), _absolute(y))
    in_front = (z > near) & (z < _MAX) & (sideways < _MAX)
    return select(in_front, x, _ZERO), select(in_front, y, _ZERO), select(in_front, z, _ONE), in_front


@helper
def _limits(fx, fy, cx, cy, height, width):
    """Range of x / z and of y / z where the Jacobian follows the point: (low x, high x, low y, high y)."""
    return (
        (-cx - _MARGIN * width) / fx,
        (width - cx + _MARGIN * width) / fx,
        (-cy - _MARGIN * height) / fy,
        (height - cy + _MARGIN * height) / fy,
    )


@helper
def _jacobian(tx, ty, iz, fx, fy, skew):
    """Nonzero entries (xx, xy, xz, yy, yz) of the derivative of pixels with respect to camera coordinates."""
    return iz * fx, iz * skew, (tx * -fx - ty * skew) * iz, iz * fy, ty * -fy * iz


@helper
def _jacobian_times_rotation(j, r):
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
def _times_axes(u, rotation):
    """Product of a row vector and the principal axes, which are the columns of the rotation."""
    q = rotation
    return (
        _dot(u[0], u[1], u[2], q[0], q[3], q[6]),
        _dot(u[0], u[1], u[2], q[1], q[4], q[7]),
        _dot(u[0], u[1], u[2], q[2], q[5], q[8]),
    )


@helper
def _footprint(a, b, s0, s1, s2):
    """Rows of the 2 x 3 root of the projected covariance, zero where it overflows, and where it does not."""
    f0, f1, f2, g0, g1, g2 = a[0] * s0, a[1] * s1, a[2] * s2, b[0] * s0, b[1] * s1, b[2] * s2
    ok = _dot(f0, f1, f2, f0, f1, f2) + _dot(g0, g1, g2, g0, g1, g2) < _MAX * _MAX
    f = select(ok, f0, _ZERO), select(ok, f1, _ZERO), select(ok, f2, _ZERO)
    return f, (select(ok, g0, _ZERO), select(ok, g1, _ZERO), select(ok, g2, _ZERO)), ok


@helper
def _covariance(f, g):
    """Projected covariance with low-pass (xx, xy, yy), and its determinant from the footprint's minors."""
    xx, xy, yy = (
        _dot(f[0], f[1], f[2], f[0], f[1], f[2]),
        _dot(f[0], f[1], f[2], g[0], g[1], g[2]),
        _dot(g[0], g[1], g[2], g[0], g[1], g[2]),
    )
    m0, m1, m2 = _cross(f, g)
    determinant = _dot(m0, m1, m2, m0, m1, m2) + (xx + yy) * _LOW_PASS + _LOW_PASS * _LOW_PASS
    return xx + _LOW_PASS, xy, yy + _LOW_PASS, determinant


@helper
def _direction(lanes, cameras, scene, view, in_front):
    """Unit vectors from the camera centre to the means, and the inverse distance."""
    dx = select(in_front, load(lanes, 0) - cameras[scene, view, 17], _ZERO)
    dy = select(in_front, load(lanes, 8) - cameras[scene, view, 18], _ZERO)
    dz = select(in_front, load(lanes, 16) - cameras[scene, view, 19], _ONE)
    inverse = _ONE / sqrt(_dot(dx, dy, dz, dx, dy, dz))
    return dx * inverse, dy * inverse, dz * inverse, inverse


@helper
def _basis(degree, x, y, z, basis):
    """Values of the spherical harmonics; the twin is `sh_basis`."""
    store(basis, 0, broadcast(_SH0))
    if degree >= 1:
        store(basis, 8, y * -_SH1)
        store(basis, 16, z * _SH1)
        store(basis, 24, x * -_SH1)
    if degree >= 2:
        store(basis, 32, x * y * _SH2A)
        store(basis, 40, y * z * -_SH2A)
        store(basis, 48, z * z * (3 * _SH2B) - _SH2B)
        store(basis, 56, x * z * -_SH2A)
        store(basis, 64, (x * x - y * y) * _SH2C)
    if degree >= 3:
        five = z * z * np.float32(5)
        store(basis, 72, y * (x * x * np.float32(3) - y * y) * -_SH3A)
        store(basis, 80, x * y * z * _SH3B)
        store(basis, 88, y * (five - _ONE) * -_SH3C)
        store(basis, 96, z * (five - np.float32(3)) * _SH3D)
        store(basis, 104, x * (five - _ONE) * -_SH3C)
        store(basis, 112, z * (x * x - y * y) * _SH3E)
        store(basis, 120, x * (x * x - y * y * np.float32(3)) * -_SH3A)


@helper
def _color(degree, basis, sh_lanes):
    """RGB before the clamp at zero."""
    red = green = blue = broadcast(_HALF)
    for k in range((degree + 1) ** 2):
        value, at = load(basis, k * LANES), 3 * k * LANES
        red = fma(value, load(sh_lanes, at), red)
        green = fma(value, load(sh_lanes, at + 8), green)
        blue = fma(value, load(sh_lanes, at + 16), blue)
    return red, green, blue


@helper
def _project_block(lanes, rotation, sh_lanes, cameras, scene, view, near, height, width, degree, basis, out):
    """Columns of the table for eight Gaussians in one view."""
    x, y, z, in_front = _to_camera(lanes, cameras, scene, view, near)
    fx, fy, skew = cameras[scene, view, 12], cameras[scene, view, 13], cameras[scene, view, 14]
    cx, cy = cameras[scene, view, 15], cameras[scene, view, 16]
    iz = _ONE / z
    tx, ty = x * iz, y * iz
    u = tx * fx + ty * skew + cx
    v = ty * fy + cy

    low_x, high_x, low_y, high_y = _limits(fx, fy, cx, cy, height, width)
    j = _jacobian(minimum(maximum(tx, low_x), high_x), minimum(maximum(ty, low_y), high_y), iz, fx, fy, skew)
    ju, jv = _jacobian_times_rotation(j, _matrix_of_camera(cameras, scene, view))
    s0, s1, s2 = load(lanes, 56), load(lanes, 64), load(lanes, 72)
    f, g, measurable = _footprint(_times_axes(ju, rotation), _times_axes(jv, rotation), s0, s1, s2)
    xx, xy, yy, determinant = _covariance(f, g)
    inverse = _ONE / determinant
    conic_xx, conic_xy = yy * inverse, xy * inverse * -_ONE

    opacity = load(lanes, 80)
    log2_opacity = log2(maximum(opacity, _MIN_ALPHA))
    q_max = (log2_opacity - _LOG2_MIN_ALPHA) * _2_LN_2
    rx, ry = sqrt(q_max * xx), sqrt(q_max * yy)
    on_screen = (u + rx >= _HALF) & (u - rx <= width - _HALF) & (v + ry >= _HALF) & (v - ry <= height - _HALF)
    visible = in_front & measurable & on_screen & (ry > _ZERO)

    dx, dy, dz, _ = _direction(lanes, cameras, scene, view, in_front)
    _basis(degree, dx, dy, dz, basis)
    red, green, blue = _color(degree, basis, sh_lanes)

    store(out, 0, u)
    store(out, 8, v)
    store(out, 16, conic_xx)
    store(out, 24, conic_xy)
    store(out, 32, xx * inverse)
    store(out, 40, opacity)
    store(out, 48, maximum(red, _ZERO))
    store(out, 56, maximum(green, _ZERO))
    store(out, 64, maximum(blue, _ZERO))
    store(out, 72, z)
    store(out, 80, select(visible, rx, _ZERO))
    store(out, 88, select(visible, ry, _ZERO))
    store(out, 96, log2_opacity)
    store(out, 104, sqrt(q_max / conic_xx))
    store(out, 112, conic_xy / conic_xx)
    store(out, 120, _ONE / ry)


@kernel
def project_backward(
    start, stop, means, quats, scales, opacities, sh, cameras, near, height, width, degree, grad_table,
    grad_means, grad_quats, grad_scales, grad_opacities, grad_sh, grad_cameras,
):  # fmt: skip
    """Derivative of `project` for chunks start..stop.

    Args:
        start: As in `project`.
        stop: As in `project`.
        means: As in `project`.
        quats: As in `project`.
        scales: As in `project`.
        opacities: As in `project`.
        sh: As in `project`.
        cameras: As in `project`.
        near: As in `project`.
        height: As in `project`.
        width: As in `project`.
        degree: As in `project`.
        grad_table: Gradients of the differentiable columns [b, v, n, COLUMNS].
        grad_means: Written.
        grad_quats: Written.
        grad_scales: Written.
        grad_opacities: Written.
        grad_sh: Written, unless its batch is 0.
        grad_cameras: Written: each chunk's part [b, chunks, v, CAMERA].
    """
    n, views = means.shape[1], cameras.shape[1]
    chunks = -(-n // CHUNK)
    rows, lanes = np.zeros(LANES * PARAMETERS, np.float32), np.empty(LANES * PARAMETERS, np.float32)
    sh_rows, sh_lanes = np.zeros(LANES * COEFFICIENTS, np.float32), np.empty(LANES * COEFFICIENTS, np.float32)
    basis, slopes = np.empty(LANES * 16, np.float32), np.empty(LANES * 48, np.float32)
    into_rows, into = np.empty(LANES * COLUMNS, np.float32), np.empty(LANES * COLUMNS, np.float32)
    grads, grad_rows = np.empty(LANES * PARAMETERS, np.float32), np.empty(LANES * PARAMETERS, np.float32)
    grad_axes = np.empty(LANES * 9, np.float32)
    sh_grads, sh_grad_rows = (
        np.empty(LANES * COEFFICIENTS, np.float32),
        np.empty(LANES * COEFFICIENTS, np.float32),
    )
    grad_camera = np.empty(views * LANES * CAMERA, np.float32)
    for task in range(start, stop):
        scene, chunk = task // chunks, task % chunks
        grad_camera[:] = 0
        for first in range(chunk * CHUNK, min((chunk + 1) * CHUNK, n), LANES):
            count = min(LANES, n - first)
            _read_gaussians(means, quats, scales, opacities, scene, first, count, rows, lanes)
            _read_harmonics(sh, scene, first, count, degree, sh_rows, sh_lanes)
            rotation = _rotation(load(lanes, 24), load(lanes, 32), load(lanes, 40), load(lanes, 48))
            grads[:] = 0
            grad_axes[:] = 0
            sh_grads[:] = 0
            for view in range(views):
                at = ((scene * views + view) * n + first) * COLUMNS
                into_rows[:] = 0
                for i in range(count):
                    store(into_rows, i * COLUMNS, load(grad_table, at + i * COLUMNS))
                    store(into_rows, i * COLUMNS + 8, load(grad_table, at + i * COLUMNS + 8))
                transpose(into_rows, 0, COLUMNS, into, 0, LANES)
                transpose(into_rows, 8, COLUMNS, into, 8 * LANES, LANES)
                _project_block_backward(
                    lanes, rotation, sh_lanes, cameras, scene, view, near, height, width, degree,
                    basis, slopes, into, grads, grad_axes, sh_grads, grad_camera, view * LANES * CAMERA,
                )  # fmt: skip
            _rotation_backward(lanes, grad_axes, grads)
            transpose(grads, 0, LANES, grad_rows, 0, PARAMETERS)
            transpose(grads, 8 * LANES, LANES, grad_rows, 8, PARAMETERS)
            for i in range(count):
                at = i * PARAMETERS
                for c in range(3):
                    grad_means[scene, first + i, c] = grad_rows[at + c]
                    grad_scales[scene, first + i, c] = grad_rows[at + 7 + c]
                for c in range(4):
                    grad_quats[scene, first + i, c] = grad_rows[at + 3 + c]
                grad_opacities[scene, first + i] = grad_rows[at + 10]
            if len(grad_sh):
                _write_harmonics(grad_sh, scene, first, count, degree, sh_grads, sh_grad_rows)
        for view in range(views):
            for c in range(CAMERA):
                total = sum_lanes(load(grad_camera, (view * CAMERA + c) * LANES))
                grad_cameras[scene, chunk, view, c] = total


@helper
def _write_harmonics(grad_sh, scene, first, count, degree, lanes, rows):
    used = 3 * (degree + 1) ** 2
    for c in range(0, used, LANES):
        transpose(lanes, c * LANES, LANES, rows, c, COEFFICIENTS)
    for i in range(count):
        for c in range(used):
            grad_sh[scene, first + i, c] = rows[i * COEFFICIENTS + c]
        for c in range(used, grad_sh.shape[2]):
            grad_sh[scene, first + i, c] = 0


@helper
def _add(array, at, value):
    store(array, at, load(array, at) + value)


@helper
def _basis_slopes(degree, x, y, z, slopes):
    """Derivatives (d/dx, d/dy, d/dz) of the basis functions after the first."""
    zero = broadcast(_ZERO)
    if degree >= 1:
        _store3(slopes, 1, zero, broadcast(-_SH1), zero)
        _store3(slopes, 2, zero, zero, broadcast(_SH1))
        _store3(slopes, 3, broadcast(-_SH1), zero, zero)
    if degree >= 2:
        _store3(slopes, 4, y * _SH2A, x * _SH2A, zero)
        _store3(slopes, 5, zero, z * -_SH2A, y * -_SH2A)
        _store3(slopes, 6, zero, zero, z * (6 * _SH2B))
        _store3(slopes, 7, z * -_SH2A, zero, x * -_SH2A)
        _store3(slopes, 8, x * (2 * _SH2C), y * (-2 * _SH2C), zero)
    if degree >= 3:
        xy, yz, xz, difference = x * y, y * z, x * z, x * x - y * y
        ring = (z * z * np.float32(5) - _ONE) * -_SH3C
        _store3(slopes, 9, xy * (-6 * _SH3A), difference * (-3 * _SH3A), zero)
        _store3(slopes, 10, yz * _SH3B, xz * _SH3B, xy * _SH3B)
        _store3(slopes, 11, zero, ring, yz * (-10 * _SH3C))
        _store3(slopes, 12, zero, zero, (z * z * np.float32(15) - np.float32(3)) * _SH3D)
        _store3(slopes, 13, ring, zero, xz * (-10 * _SH3C))
        _store3(slopes, 14, xz * (2 * _SH3E), yz * (-2 * _SH3E), difference * _SH3E)
        _store3(slopes, 15, difference * (-3 * _SH3A), xy * (6 * _SH3A), zero)


@helper
def _store3(slopes, k, x, y, z):
    store(slopes, k * 24, x)
    store(slopes, k * 24 + 8, y)
    store(slopes, k * 24 + 16, z)


@helper
def _color_backward(degree, basis, slopes, sh_lanes, red, green, blue, sh_grads):
    """From gradients of the colours: adds those of the coefficients, returns those of the direction."""
    x = y = z = broadcast(_ZERO)
    for k in range((degree + 1) ** 2):
        value, at = load(basis, k * LANES), 3 * k * LANES
        store(sh_grads, at, fma(value, red, load(sh_grads, at)))
        store(sh_grads, at + 8, fma(value, green, load(sh_grads, at + 8)))
        store(sh_grads, at + 16, fma(value, blue, load(sh_grads, at + 16)))
        if k > 0:
            pull = _dot(red, green, blue, load(sh_lanes, at), load(sh_lanes, at + 8), load(sh_lanes, at + 16))
            x = fma(pull, load(slopes, at), x)
            y = fma(pull, load(slopes, at + 8), y)
            z = fma(pull, load(slopes, at + 16), z)
    return x, y, z


@helper
def _project_block_backward(
    lanes, rotation, sh_lanes, cameras, scene, view, near, height, width, degree,
    basis, slopes, into, grads, grad_axes, sh_grads, grad_camera, camera,
):  # fmt: skip
    """Adds the gradients of eight Gaussians in one view; names follow `_project_block`, g_ is a gradient."""
    x, y, z, in_front = _to_camera(lanes, cameras, scene, view, near)
    r = _matrix_of_camera(cameras, scene, view)
    fx, fy, skew = cameras[scene, view, 12], cameras[scene, view, 13], cameras[scene, view, 14]
    cx, cy = cameras[scene, view, 15], cameras[scene, view, 16]
    iz = _ONE / z
    tx, ty = x * iz, y * iz
    low_x, high_x, low_y, high_y = _limits(fx, fy, cx, cy, height, width)
    clamped_x, clamped_y = minimum(maximum(tx, low_x), high_x), minimum(maximum(ty, low_y), high_y)
    j = _jacobian(clamped_x, clamped_y, iz, fx, fy, skew)
    ju, jv = _jacobian_times_rotation(j, r)
    s0, s1, s2 = load(lanes, 56), load(lanes, 64), load(lanes, 72)
    a, b = _times_axes(ju, rotation), _times_axes(jv, rotation)
    f, g, measurable = _footprint(a, b, s0, s1, s2)
    xx, xy, yy, determinant = _covariance(f, g)

    # The conic is (yy, -xy, xx) / determinant. Going through the minors, as the twin does, keeps needles
    # accurate: their covariance is large and nearly singular, their minors are not.
    inverse = _ONE / determinant
    g_p, g_q, g_w = load(into, 16), load(into, 24), load(into, 32)
    g_det = (yy * g_p - xy * g_q + xx * g_w) * inverse * inverse * -_ONE
    g_xx = select(measurable, (g_w * inverse + g_det * _LOW_PASS) * _TWO, _ZERO)
    g_yy = select(measurable, (g_p * inverse + g_det * _LOW_PASS) * _TWO, _ZERO)
    g_xy = select(measurable, g_q * inverse * -_ONE, _ZERO)
    g_det = select(measurable, g_det * _TWO, _ZERO)
    m0, m1, m2 = _cross(f, g)
    m = m0 * g_det, m1 * g_det, m2 * g_det
    through_f, through_g = _cross(g, m), _cross(m, f)
    g_f0, g_g0 = g_xx * f[0] + g_xy * g[0] + through_f[0], g_xy * f[0] + g_yy * g[0] + through_g[0]
    g_f1, g_g1 = g_xx * f[1] + g_xy * g[1] + through_f[1], g_xy * f[1] + g_yy * g[1] + through_g[1]
    g_f2, g_g2 = g_xx * f[2] + g_xy * g[2] + through_f[2], g_xy * f[2] + g_yy * g[2] + through_g[2]
    _add(grads, 56, g_f0 * a[0] + g_g0 * b[0])
    _add(grads, 64, g_f1 * a[1] + g_g1 * b[1])
    _add(grads, 72, g_f2 * a[2] + g_g2 * b[2])

    # Gradients of (Jacobian times rotation) times axes: of the axes, then of the left factor.
    g_f0, g_f1, g_f2, g_g0, g_g1, g_g2 = g_f0 * s0, g_f1 * s1, g_f2 * s2, g_g0 * s0, g_g1 * s1, g_g2 * s2
    for i in range(3):
        left_u, left_v = _pick(ju, i), _pick(jv, i)
        _add(grad_axes, 24 * i, left_u * g_f0 + left_v * g_g0)
        _add(grad_axes, 24 * i + 8, left_u * g_f1 + left_v * g_g1)
        _add(grad_axes, 24 * i + 16, left_u * g_f2 + left_v * g_g2)
    o = rotation
    g_u0, g_v0 = _dot(g_f0, g_f1, g_f2, o[0], o[1], o[2]), _dot(g_g0, g_g1, g_g2, o[0], o[1], o[2])
    g_u1, g_v1 = _dot(g_f0, g_f1, g_f2, o[3], o[4], o[5]), _dot(g_g0, g_g1, g_g2, o[3], o[4], o[5])
    g_u2, g_v2 = _dot(g_f0, g_f1, g_f2, o[6], o[7], o[8]), _dot(g_g0, g_g1, g_g2, o[6], o[7], o[8])
    g_j0 = g_u0 * r[0] + g_u1 * r[1] + g_u2 * r[2]
    g_j1 = g_u0 * r[3] + g_u1 * r[4] + g_u2 * r[5]
    g_j2 = g_u0 * r[6] + g_u1 * r[7] + g_u2 * r[8]
    g_j3 = g_v0 * r[3] + g_v1 * r[4] + g_v2 * r[5]
    g_j4 = g_v0 * r[6] + g_v1 * r[7] + g_v2 * r[8]

    # Jacobian and pixel coordinates, to intrinsics and (x / z, y / z, 1 / z).
    g_u, g_v = load(into, 0), load(into, 8)
    along_x, along_y = iz * g_j2, iz * g_j4
    g_clamped_x = along_x * -fx
    g_clamped_y = along_x * -skew - along_y * fy
    free_x, free_y = (tx >= low_x) & (tx <= high_x), (ty >= low_y) & (ty <= high_y)
    g_limit_x = select(free_x, _ZERO, g_clamped_x) * (_ONE / fx)  # limits move with the intrinsics
    g_limit_y = select(free_y, _ZERO, g_clamped_y) * (_ONE / fy)
    g_tx = select(free_x, g_clamped_x, _ZERO) + g_u * fx
    g_ty = select(free_y, g_clamped_y, _ZERO) + g_u * skew + g_v * fy
    _add(grad_camera, camera + 96, iz * g_j0 - along_x * clamped_x - g_limit_x * clamped_x + g_u * tx)
    _add(grad_camera, camera + 104, iz * g_j3 - along_y * clamped_y - g_limit_y * clamped_y + g_v * ty)
    _add(grad_camera, camera + 112, iz * g_j1 - along_x * clamped_y + g_u * ty)
    _add(grad_camera, camera + 120, g_u - g_limit_x)
    _add(grad_camera, camera + 128, g_v - g_limit_y)
    g_iz = g_j0 * fx + g_j1 * skew + g_j3 * fy + g_tx * x + g_ty * y
    g_iz = g_iz - g_j2 * (clamped_x * fx + clamped_y * skew) - g_j4 * clamped_y * fy

    g_x, g_y, g_z = g_tx * iz, g_ty * iz, load(into, 72) - g_iz * iz * iz
    g_x, g_y, g_z = select(in_front, g_x, _ZERO), select(in_front, g_y, _ZERO), select(in_front, g_z, _ZERO)

    # Colours, to coefficients and direction.
    dx, dy, dz, distance = _direction(lanes, cameras, scene, view, in_front)
    _basis(degree, dx, dy, dz, basis)
    _basis_slopes(degree, dx, dy, dz, slopes)
    red, green, blue = _color(degree, basis, sh_lanes)
    g_dx, g_dy, g_dz = _color_backward(
        degree, basis, slopes, sh_lanes,
        select(red >= _ZERO, load(into, 48), _ZERO),
        select(green >= _ZERO, load(into, 56), _ZERO),
        select(blue >= _ZERO, load(into, 64), _ZERO),
        sh_grads,
    )  # fmt: skip
    radial = _dot(dx, dy, dz, g_dx, g_dy, g_dz)
    g_dx, g_dy, g_dz = (
        select(in_front, (g_dx - dx * radial) * distance, _ZERO),
        select(in_front, (g_dy - dy * radial) * distance, _ZERO),
        select(in_front, (g_dz - dz * radial) * distance, _ZERO),
    )

    # Camera coordinates and direction, to means and pose.
    mx, my, mz = load(lanes, 0), load(lanes, 8), load(lanes, 16)
    _add(grads, 0, g_x * r[0] + g_y * r[3] + g_z * r[6] + g_dx)
    _add(grads, 8, g_x * r[1] + g_y * r[4] + g_z * r[7] + g_dy)
    _add(grads, 16, g_x * r[2] + g_y * r[5] + g_z * r[8] + g_dz)
    _add(grads, 80, load(into, 40))
    _add(grad_camera, camera, g_x * mx + j[0] * g_u0)
    _add(grad_camera, camera + 8, g_x * my + j[0] * g_u1)
    _add(grad_camera, camera + 16, g_x * mz + j[0] * g_u2)
    _add(grad_camera, camera + 24, g_y * mx + j[1] * g_u0 + j[3] * g_v0)
    _add(grad_camera, camera + 32, g_y * my + j[1] * g_u1 + j[3] * g_v1)
    _add(grad_camera, camera + 40, g_y * mz + j[1] * g_u2 + j[3] * g_v2)
    _add(grad_camera, camera + 48, g_z * mx + j[2] * g_u0 + j[4] * g_v0)
    _add(grad_camera, camera + 56, g_z * my + j[2] * g_u1 + j[4] * g_v1)
    _add(grad_camera, camera + 64, g_z * mz + j[2] * g_u2 + j[4] * g_v2)
    _add(grad_camera, camera + 72, g_x)
    _add(grad_camera, camera + 80, g_y)
    _add(grad_camera, camera + 88, g_z)
    _add(grad_camera, camera + 136, g_dx * -_ONE)
    _add(grad_camera, camera + 144, g_dy * -_ONE)
    _add(grad_camera, camera + 152, g_dz * -_ONE)


@helper
def _pick(triple, i):
    if i == 0:
        return triple[0]
    if i == 1:
        return triple[1]
    return triple[2]


@helper
def _rotation_backward(lanes, grad_axes, grads):
    """Gradients of the quaternions, orthogonal to them: their norm does not matter."""
    w, x, y, z = load(lanes, 24), load(lanes, 32), load(lanes, 40), load(lanes, 48)
    w, x, y, z, inverse = _unit(w, x, y, z)
    g00, g01, g02 = load(grad_axes, 0), load(grad_axes, 8), load(grad_axes, 16)
    g10, g11, g12 = load(grad_axes, 24), load(grad_axes, 32), load(grad_axes, 40)
    g20, g21, g22 = load(grad_axes, 48), load(grad_axes, 56), load(grad_axes, 64)
    g_w = x * (g21 - g12) + y * (g02 - g20) + z * (g10 - g01)
    g_x = y * (g01 + g10) + z * (g02 + g20) + w * (g21 - g12) - x * _TWO * (g11 + g22)
    g_y = x * (g01 + g10) + z * (g12 + g21) + w * (g02 - g20) - y * _TWO * (g00 + g22)
    g_z = x * (g02 + g20) + y * (g12 + g21) + w * (g10 - g01) - z * _TWO * (g00 + g11)
    radial = w * g_w + x * g_x + y * g_y + z * g_z
    scale = inverse * _TWO
    store(grads, 24, (g_w - w * radial) * scale)
    store(grads, 32, (g_x - x * radial) * scale)
    store(grads, 40, (g_y - y * radial) * scale)
    store(grads, 48, (g_z - z * radial) * scale)
