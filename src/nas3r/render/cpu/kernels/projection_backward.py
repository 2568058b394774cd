"""Derivative of the projection of Gaussians to the table of splats: eight Gaussians at a time.

Gradients of the cameras are added per chunk, so that the order of the sum does not depend on the threads.
"""

import numpy as np

from nas3r.render.cpu.kernels import columns
from nas3r.render.cpu.kernels.arithmetic import ONE, TWO, ZERO, cross, dot
from nas3r.render.cpu.kernels.columns import COLUMNS
from nas3r.render.cpu.kernels.compile import helper, kernel
from nas3r.render.cpu.kernels.harmonics import (
    color_backward,
    harmonics,
    harmonics_slopes,
    read_harmonics,
    to_color,
    write_harmonics,
)
from nas3r.render.cpu.kernels.lanes import (
    BASIS,
    CAMERA,
    CENTER,
    CHUNK,
    COEFFICIENTS,
    CX,
    CY,
    FX,
    FY,
    MEAN,
    OPACITY,
    PARAMETERS,
    QUAT,
    ROTATION,
    SCALE,
    SKEW,
    TRANSLATION,
    add,
    add3,
    put,
    put3,
    take,
    take3,
    take4,
)
from nas3r.render.cpu.kernels.simd import LANES, load, maximum, minimum, select, store, sum_lanes, transpose
from nas3r.render.cpu.kernels.steps import (
    covariance,
    direction,
    footprint,
    jacobian,
    jacobian_times_rotation,
    limits,
    read_gaussians,
    rotation_of_camera,
    times_axes,
    to_camera,
    to_rotation,
    unit,
)
from nas3r.render.projection import LOW_PASS

_LOW_PASS = np.float32(LOW_PASS)


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
    basis, slopes = np.empty(LANES * BASIS, np.float32), np.empty(LANES * 3 * BASIS, np.float32)
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
            read_gaussians(means, quats, scales, opacities, scene, first, count, rows, lanes)
            read_harmonics(sh, scene, first, count, degree, sh_rows, sh_lanes)
            rotation = to_rotation(*take4(lanes, QUAT))
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
                    basis, slopes, into, grads, grad_axes, sh_grads, grad_camera, view * CAMERA,
                )  # fmt: skip
            _rotation_backward(lanes, grad_axes, grads)
            transpose(grads, 0, LANES, grad_rows, 0, PARAMETERS)
            transpose(grads, 8 * LANES, LANES, grad_rows, 8, PARAMETERS)
            for i in range(count):
                at = i * PARAMETERS
                for c in range(3):
                    grad_means[scene, first + i, c] = grad_rows[at + MEAN + c]
                    grad_scales[scene, first + i, c] = grad_rows[at + SCALE + c]
                for c in range(4):
                    grad_quats[scene, first + i, c] = grad_rows[at + QUAT + c]
                grad_opacities[scene, first + i] = grad_rows[at + OPACITY]
            if len(grad_sh):
                write_harmonics(grad_sh, scene, first, count, degree, sh_grads, sh_grad_rows)
        for view in range(views):
            for c in range(CAMERA):
                total = sum_lanes(take(grad_camera, view * CAMERA + c))
                grad_cameras[scene, chunk, view, c] = total


@helper
def _project_block_backward(
    lanes, rotation, sh_lanes, cameras, scene, view, near, height, width, degree,
    basis, slopes, into, grads, grad_axes, sh_grads, grad_camera, camera,
):  # fmt: skip
    """Adds the gradients of eight Gaussians in one view; names follow `_project_block`, g_ is a gradient."""
    x, y, z, in_front = to_camera(lanes, cameras, scene, view, near)
    r = rotation_of_camera(cameras, scene, view)
    fx, fy, skew = cameras[scene, view, FX], cameras[scene, view, FY], cameras[scene, view, SKEW]
    cx, cy = cameras[scene, view, CX], cameras[scene, view, CY]
    iz = ONE / z
    tx, ty = x * iz, y * iz
    low_x, high_x, low_y, high_y = limits(fx, fy, cx, cy, height, width)
    clamped_x, clamped_y = minimum(maximum(tx, low_x), high_x), minimum(maximum(ty, low_y), high_y)
    j = jacobian(clamped_x, clamped_y, iz, fx, fy, skew)
    ju, jv = jacobian_times_rotation(j, r)
    s0, s1, s2 = take3(lanes, SCALE)
    a, b = times_axes(ju, rotation), times_axes(jv, rotation)
    f, g, measurable = footprint(a, b, s0, s1, s2)
    xx, xy, yy, determinant = covariance(f, g)

    # The conic is (yy, -xy, xx) / determinant. Going through the minors, as the twin does, keeps needles
    # accurate: their covariance is large and nearly singular, their minors are not.
    inverse = ONE / determinant
    g_p, g_q, g_w = take(into, columns.XX), take(into, columns.XY), take(into, columns.YY)
    g_det = (yy * g_p - xy * g_q + xx * g_w) * inverse * inverse * -ONE
    g_xx = select(measurable, (g_w * inverse + g_det * _LOW_PASS) * TWO, ZERO)
    g_yy = select(measurable, (g_p * inverse + g_det * _LOW_PASS) * TWO, ZERO)
    g_xy = select(measurable, g_q * inverse * -ONE, ZERO)
    g_det = select(measurable, g_det * TWO, ZERO)
    m0, m1, m2 = cross(f, g)
    m = m0 * g_det, m1 * g_det, m2 * g_det
    through_f, through_g = cross(g, m), cross(m, f)
    g_f0, g_g0 = g_xx * f[0] + g_xy * g[0] + through_f[0], g_xy * f[0] + g_yy * g[0] + through_g[0]
    g_f1, g_g1 = g_xx * f[1] + g_xy * g[1] + through_f[1], g_xy * f[1] + g_yy * g[1] + through_g[1]
    g_f2, g_g2 = g_xx * f[2] + g_xy * g[2] + through_f[2], g_xy * f[2] + g_yy * g[2] + through_g[2]
    add3(grads, SCALE, g_f0 * a[0] + g_g0 * b[0], g_f1 * a[1] + g_g1 * b[1], g_f2 * a[2] + g_g2 * b[2])

    # Gradients of (Jacobian times rotation) times axes: of the axes, then of the left factor.
    g_f0, g_f1, g_f2, g_g0, g_g1, g_g2 = g_f0 * s0, g_f1 * s1, g_f2 * s2, g_g0 * s0, g_g1 * s1, g_g2 * s2
    for i in range(3):
        left_u, left_v = _pick(ju, i), _pick(jv, i)
        add3(
            grad_axes, 3 * i,
            left_u * g_f0 + left_v * g_g0, left_u * g_f1 + left_v * g_g1, left_u * g_f2 + left_v * g_g2,
        )  # fmt: skip
    o = rotation
    g_u0, g_v0 = dot(g_f0, g_f1, g_f2, o[0], o[1], o[2]), dot(g_g0, g_g1, g_g2, o[0], o[1], o[2])
    g_u1, g_v1 = dot(g_f0, g_f1, g_f2, o[3], o[4], o[5]), dot(g_g0, g_g1, g_g2, o[3], o[4], o[5])
    g_u2, g_v2 = dot(g_f0, g_f1, g_f2, o[6], o[7], o[8]), dot(g_g0, g_g1, g_g2, o[6], o[7], o[8])
    g_j0 = g_u0 * r[0] + g_u1 * r[1] + g_u2 * r[2]
    g_j1 = g_u0 * r[3] + g_u1 * r[4] + g_u2 * r[5]
    g_j2 = g_u0 * r[6] + g_u1 * r[7] + g_u2 * r[8]
    g_j3 = g_v0 * r[3] + g_v1 * r[4] + g_v2 * r[5]
    g_j4 = g_v0 * r[6] + g_v1 * r[7] + g_v2 * r[8]

    # Jacobian and pixel coordinates, to intrinsics and (x / z, y / z, 1 / z).
    g_u, g_v = take(into, columns.X), take(into, columns.Y)
    along_x, along_y = iz * g_j2, iz * g_j4
    g_clamped_x = along_x * -fx
    g_clamped_y = along_x * -skew - along_y * fy
    free_x, free_y = (tx >= low_x) & (tx <= high_x), (ty >= low_y) & (ty <= high_y)
    g_limit_x = select(free_x, ZERO, g_clamped_x) * (ONE / fx)  # limits move with the intrinsics
    g_limit_y = select(free_y, ZERO, g_clamped_y) * (ONE / fy)
    g_tx = select(free_x, g_clamped_x, ZERO) + g_u * fx
    g_ty = select(free_y, g_clamped_y, ZERO) + g_u * skew + g_v * fy
    add(grad_camera, camera + FX, iz * g_j0 - along_x * clamped_x - g_limit_x * clamped_x + g_u * tx)
    add(grad_camera, camera + FY, iz * g_j3 - along_y * clamped_y - g_limit_y * clamped_y + g_v * ty)
    add(grad_camera, camera + SKEW, iz * g_j1 - along_x * clamped_y + g_u * ty)
    add(grad_camera, camera + CX, g_u - g_limit_x)
    add(grad_camera, camera + CY, g_v - g_limit_y)
    g_iz = g_j0 * fx + g_j1 * skew + g_j3 * fy + g_tx * x + g_ty * y
    g_iz = g_iz - g_j2 * (clamped_x * fx + clamped_y * skew) - g_j4 * clamped_y * fy

    g_x, g_y, g_z = g_tx * iz, g_ty * iz, take(into, columns.DEPTH) - g_iz * iz * iz
    g_x, g_y, g_z = select(in_front, g_x, ZERO), select(in_front, g_y, ZERO), select(in_front, g_z, ZERO)

    # Colours, to coefficients and direction.
    dx, dy, dz, distance = direction(lanes, cameras, scene, view, in_front)
    harmonics(degree, dx, dy, dz, basis)
    harmonics_slopes(degree, dx, dy, dz, slopes)
    red, green, blue = to_color(degree, basis, sh_lanes)
    g_dx, g_dy, g_dz = color_backward(
        degree, basis, slopes, sh_lanes,
        select(red >= ZERO, take(into, columns.RED), ZERO),
        select(green >= ZERO, take(into, columns.GREEN), ZERO),
        select(blue >= ZERO, take(into, columns.BLUE), ZERO),
        sh_grads,
    )  # fmt: skip
    radial = dot(dx, dy, dz, g_dx, g_dy, g_dz)
    g_dx, g_dy, g_dz = (
        select(in_front, (g_dx - dx * radial) * distance, ZERO),
        select(in_front, (g_dy - dy * radial) * distance, ZERO),
        select(in_front, (g_dz - dz * radial) * distance, ZERO),
    )

    # Camera coordinates and direction, to means and pose.
    mx, my, mz = take3(lanes, MEAN)
    add3(
        grads, MEAN,
        g_x * r[0] + g_y * r[3] + g_z * r[6] + g_dx,
        g_x * r[1] + g_y * r[4] + g_z * r[7] + g_dy,
        g_x * r[2] + g_y * r[5] + g_z * r[8] + g_dz,
    )  # fmt: skip
    add(grads, OPACITY, take(into, columns.OPACITY))
    row = camera + ROTATION
    add3(grad_camera, row, g_x * mx + j[0] * g_u0, g_x * my + j[0] * g_u1, g_x * mz + j[0] * g_u2)
    add3(
        grad_camera, row + 3,
        g_y * mx + j[1] * g_u0 + j[3] * g_v0,
        g_y * my + j[1] * g_u1 + j[3] * g_v1,
        g_y * mz + j[1] * g_u2 + j[3] * g_v2,
    )  # fmt: skip
    add3(
        grad_camera, row + 6,
        g_z * mx + j[2] * g_u0 + j[4] * g_v0,
        g_z * my + j[2] * g_u1 + j[4] * g_v1,
        g_z * mz + j[2] * g_u2 + j[4] * g_v2,
    )  # fmt: skip
    add3(grad_camera, camera + TRANSLATION, g_x, g_y, g_z)
    add3(grad_camera, camera + CENTER, g_dx * -ONE, g_dy * -ONE, g_dz * -ONE)


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
    w, x, y, z, inverse = unit(*take4(lanes, QUAT))
    g00, g01, g02 = take3(grad_axes, 0)
    g10, g11, g12 = take3(grad_axes, 3)
    g20, g21, g22 = take3(grad_axes, 6)
    g_w = x * (g21 - g12) + y * (g02 - g20) + z * (g10 - g01)
    g_x = y * (g01 + g10) + z * (g02 + g20) + w * (g21 - g12) - x * TWO * (g11 + g22)
    g_y = x * (g01 + g10) + z * (g12 + g21) + w * (g02 - g20) - y * TWO * (g00 + g22)
    g_z = x * (g02 + g20) + y * (g12 + g21) + w * (g10 - g01) - z * TWO * (g00 + g11)
    radial = w * g_w + x * g_x + y * g_y + z * g_z
    scale = inverse * TWO
    put(grads, QUAT, (g_w - w * radial) * scale)
    put3(grads, QUAT + 1, (g_x - x * radial) * scale, (g_y - y * radial) * scale, (g_z - z * radial) * scale)
