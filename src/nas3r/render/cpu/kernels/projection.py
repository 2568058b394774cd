"""Projection of Gaussians to the table of splats: eight Gaussians at a time.

The same mathematics as `nas3r.render.projection` and `spherical_harmonics`, the twins that the kernels are
tested against. The derivative is in `projection_backward`.

Gaussians are handled in blocks of eight, whose parameters are transposed into `lanes`. Blocks form chunks.
"""

import numpy as np

from nas3r.render.cpu.kernels import columns
from nas3r.render.cpu.kernels.arithmetic import HALF, ONE, ZERO
from nas3r.render.cpu.kernels.columns import COLUMNS
from nas3r.render.cpu.kernels.compile import helper, kernel
from nas3r.render.cpu.kernels.harmonics import harmonics, read_harmonics, to_color
from nas3r.render.cpu.kernels.lanes import (
    BASIS,
    CHUNK,
    COEFFICIENTS,
    CX,
    CY,
    FX,
    FY,
    OPACITY,
    PARAMETERS,
    QUAT,
    SCALE,
    SKEW,
    put,
    take,
    take3,
    take4,
)
from nas3r.render.cpu.kernels.simd import (
    LANES,
    broadcast,
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
)
from nas3r.render.projection import MIN_ALPHA

_MIN_ALPHA = np.float32(MIN_ALPHA)
_LOG2_MIN_ALPHA = np.float32(np.log2(MIN_ALPHA))
_2_LN_2 = np.float32(2 * np.log(2))


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
    basis = np.empty(LANES * BASIS, np.float32)
    out, out_rows = np.zeros(LANES * COLUMNS, np.float32), np.empty(LANES * COLUMNS, np.float32)
    for task in range(start, stop):
        scene, chunk = task // chunks, task % chunks
        check = broadcast(ZERO)
        for first in range(chunk * CHUNK, min((chunk + 1) * CHUNK, n), LANES):
            count = min(LANES, n - first)
            read_gaussians(means, quats, scales, opacities, scene, first, count, rows, lanes)
            read_harmonics(sh, scene, first, count, degree, sh_rows, sh_lanes)
            check = check + _times_zero(lanes, OPACITY + 1) + _times_zero(sh_lanes, 3 * (degree + 1) ** 2)
            rotation = to_rotation(*take4(lanes, QUAT))
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
        finite[task] = sum_lanes(check) == ZERO


@helper
def _times_zero(lanes, parameters):
    """Zero times the sum of the parameters: NaN if one is not finite."""
    total = broadcast(ZERO)
    for i in range(parameters):
        total = total + take(lanes, i) * ZERO
    return total


@helper
def _project_block(lanes, rotation, sh_lanes, cameras, scene, view, near, height, width, degree, basis, out):
    """Columns of the table for eight Gaussians in one view."""
    x, y, z, in_front = to_camera(lanes, cameras, scene, view, near)
    fx, fy, skew = cameras[scene, view, FX], cameras[scene, view, FY], cameras[scene, view, SKEW]
    cx, cy = cameras[scene, view, CX], cameras[scene, view, CY]
    iz = ONE / z
    tx, ty = x * iz, y * iz
    u = tx * fx + ty * skew + cx
    v = ty * fy + cy

    low_x, high_x, low_y, high_y = limits(fx, fy, cx, cy, height, width)
    j = jacobian(minimum(maximum(tx, low_x), high_x), minimum(maximum(ty, low_y), high_y), iz, fx, fy, skew)
    ju, jv = jacobian_times_rotation(j, rotation_of_camera(cameras, scene, view))
    s0, s1, s2 = take3(lanes, SCALE)
    f, g, measurable = footprint(times_axes(ju, rotation), times_axes(jv, rotation), s0, s1, s2)
    xx, xy, yy, determinant = covariance(f, g)
    inverse = ONE / determinant
    conic_xx, conic_xy = yy * inverse, xy * inverse * -ONE

    opacity = take(lanes, OPACITY)
    log2_opacity = log2(maximum(opacity, _MIN_ALPHA))
    q_max = (log2_opacity - _LOG2_MIN_ALPHA) * _2_LN_2
    rx, ry = sqrt(q_max * xx), sqrt(q_max * yy)
    on_screen = (u + rx >= HALF) & (u - rx <= width - HALF) & (v + ry >= HALF) & (v - ry <= height - HALF)
    visible = in_front & measurable & on_screen & (ry > ZERO)

    dx, dy, dz, _ = direction(lanes, cameras, scene, view, in_front)
    harmonics(degree, dx, dy, dz, basis)
    red, green, blue = to_color(degree, basis, sh_lanes)

    put(out, columns.X, u)
    put(out, columns.Y, v)
    put(out, columns.XX, conic_xx)
    put(out, columns.XY, conic_xy)
    put(out, columns.YY, xx * inverse)
    put(out, columns.OPACITY, opacity)
    put(out, columns.RED, maximum(red, ZERO))
    put(out, columns.GREEN, maximum(green, ZERO))
    put(out, columns.BLUE, maximum(blue, ZERO))
    put(out, columns.DEPTH, z)
    put(out, columns.RADIUS_X, select(visible, rx, ZERO))
    put(out, columns.RADIUS_Y, select(visible, ry, ZERO))
    put(out, columns.LOG2_OPACITY, log2_opacity)
    put(out, columns.HALF_CHORD, sqrt(q_max / conic_xx))
    put(out, columns.SLOPE, conic_xy / conic_xx)
    put(out, columns.INVERSE_RADIUS_Y, ONE / ry)
