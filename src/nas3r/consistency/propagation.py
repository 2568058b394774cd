"""Planes of pixels, made better by trying those of their neighbours and some at random (PatchMatch).

Bleyer, Rhemann and Rother, "PatchMatch Stereo: Stereo Matching with Slanted Support Windows", BMVC 2011; red
and black pixels in turn, with the best of several neighbours a direction, as in Xu and Tao, "Multi-Scale
Geometric Consistency Guided Multi-View Stereo", CVPR 2019. Pixels of one colour read only those of the other,
so the result does not depend on the order or the number of threads.
"""

import numba
import numpy as np

from nas3r.consistency.plane_cost import SAMPLES, WORST, inlined, read_window, window_cost
from nas3r.render.cpu.kernels.compile import kernel

MOST_SOURCES = 8  # other views that a view is compared with
_REACH = 12  # pixels, up to which neighbours are asked; at odd distances, which have the other colour
_SAME = 5e-4  # relative difference of inverse depths that are not worth another try
_FLATTEST = 0.15  # cosine between ray and normal; flatter planes are not tried
_WEAK = 0.04  # cost of a plane that is far from where the search began, which only breaks ties
_FAR = 0.1  # in the logarithm of depth


@numba.njit(nogil=True)
def _random(pixel, step, draw):
    """Uniform in [-1, 1], of a pixel, a step and a draw alone (a hash: Wellons' lowbias32)."""
    x = np.uint32(pixel * np.uint32(2654435761) + step * np.uint32(40503) + draw * np.uint32(2246822519))
    x ^= x >> np.uint32(16)
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x ^= x >> np.uint32(15)
    x = np.uint32(x * np.uint32(0x846CA68B))
    x ^= x >> np.uint32(16)
    return np.float32(x) / np.float32(2147483648.0) - np.float32(1)


@inlined
def _may_be(w, gx, gy, x, y, lens):
    """Whether a plane is in front of the view and not seen too flatly; `lens` is fx, fy, cx, cy."""
    if not w > 0:
        return False
    u, v = (x - lens[2]) / lens[0], (y - lens[3]) / lens[1]
    nx, ny = gx * lens[0], gy * lens[1]
    nz = w - nx * u - ny * v
    return w * w > np.float32(_FLATTEST * _FLATTEST) * (nx * nx + ny * ny + nz * nz) * (u * u + v * v + 1)


@inlined
def _prior(w, began):
    off = np.log(w / began) / np.float32(_FAR)
    return np.float32(_WEAK) * min(off * off, np.float32(1))


@inlined
def _cost(values, weights, variance, x, y, w, gx, gy, warps, greys, sources, chosen, enough):
    """Mean cost over the chosen views; given up as soon as it exceeds `enough`."""
    total = np.float32(0)
    most = enough * np.float32(len(chosen))
    for k in range(len(chosen)):
        s = chosen[k]
        total += window_cost(values, weights, variance, x, y, w, gx, gy, warps[s], greys[sources[s]])
        if total > most:
            return np.float32(2)
    return total / np.float32(len(chosen))


@kernel
def choose_views(start, stop, view, greys, warps, sources, planes, chosen, cost, began):
    """Of every pixel of rows start to stop: the views that show its plane best, and the mean cost there.

    Args:
        start: First row.
        stop: Past the last one.
        view: The view.
        greys: Grey values of all views [v, h, w].
        warps: To the sources [s, 12], see `window_cost`.
        sources: The other views [s].
        planes: Inverse depth and what it gains per pixel [h, w, 3].
        chosen: Is filled with indices into the sources [h, w, k].
        cost: Is filled [h, w].
        began: Inverse depth where the search began [h, w].
    """
    values, weights = np.empty(SAMPLES, np.float32), np.empty(SAMPLES, np.float32)
    each = np.empty(len(sources), np.float32)
    width, count = greys.shape[2], chosen.shape[2]
    for row in range(start, stop):
        for column in range(width):
            variance = read_window(greys[view], row, column, values, weights)
            x, y = np.float32(column + 0.5), np.float32(row + 0.5)
            w, gx, gy = planes[row, column]
            for s in range(len(sources)):
                each[s] = window_cost(values, weights, variance, x, y, w, gx, gy, warps[s], greys[sources[s]])
            total = np.float32(0)
            for k in range(count):
                best = 0
                for s in range(1, len(sources)):
                    if each[s] < each[best]:
                        best = s
                chosen[row, column, k] = best
                total += each[best]
                each[best] = np.float32(WORST + 1 + k)
            cost[row, column] = total / np.float32(count) + _prior(w, began[row, column])


@kernel
def improve(
    start, stop, view, greys, warps, sources, planes, chosen, cost, began, lens, color, step, spread, tilt
):
    """One round for the pixels of one colour in rows start to stop: neighbours' planes, then random ones.

    Args:
        start: First row.
        stop: Past the last one.
        view: The view.
        greys: See `choose_views`; so are `warps`, `sources`, `planes`, `chosen`, `cost` and `began`. Planes
            and costs are made better in place.
        warps: Ditto.
        sources: Ditto.
        planes: Ditto.
        chosen: Ditto.
        cost: Ditto.
        began: Ditto.
        lens: fx, fy, cx, cy in pixels [4].
        color: 0 or 1.
        step: Number of the round, which random planes depend on.
        spread: Of the logarithm of random depths.
        tilt: Of random slants, as a tangent.
    """
    values, weights = np.empty(SAMPLES, np.float32), np.empty(SAMPLES, np.float32)
    height, width = greys.shape[1:]
    for row in range(start, stop):
        for column in range((row + color) % 2, width, 2):
            variance = read_window(greys[view], row, column, values, weights)
            x, y = np.float32(column + 0.5), np.float32(row + 0.5)
            w, gx, gy = planes[row, column]
            prior = began[row, column]
            best = cost[row, column]
            mine = chosen[row, column]
            for direction in range(8):
                dx, dy = ((1, 0), (-1, 0), (0, 1), (0, -1))[direction % 4]
                first, last = (1, 1) if direction < 4 else (3, _REACH)
                least = np.float32(3)
                nr, nc = -1, -1
                for far in range(first, last + 1, 2):
                    r, c = row + far * dy, column + far * dx
                    if r < 0 or c < 0 or r >= height or c >= width:
                        break
                    if cost[r, c] < least:
                        least, nr, nc = cost[r, c], r, c
                if nr < 0:
                    continue
                nw, ngx, ngy = planes[nr, nc]
                nw += ngx * np.float32(column - nc) + ngy * np.float32(row - nr)
                same = abs(nw - w) + 4 * (abs(ngx - gx) + abs(ngy - gy)) < np.float32(_SAME) * w
                if same or not _may_be(nw, ngx, ngy, x, y, lens):
                    continue
                extra = _prior(nw, prior)
                got = extra + _cost(
                    values, weights, variance, x, y, nw, ngx, ngy, warps, greys, sources, mine, best - extra
                )
                if got < best:
                    best, w, gx, gy = got, nw, ngx, ngy
            pixel = row * width + column
            for draw in range(3):
                nw, ngx, ngy = w, gx, gy
                if draw != 1:
                    nw = w * np.exp(np.float32(spread) * _random(pixel, step, 3 * draw))
                    ngx, ngy = gx * nw / w, gy * nw / w
                if draw != 0:
                    size = np.float32(tilt) * nw
                    ngx += size * _random(pixel, step, 3 * draw + 1) / lens[0]
                    ngy += size * _random(pixel, step, 3 * draw + 2) / lens[1]
                if not _may_be(nw, ngx, ngy, x, y, lens):
                    continue
                extra = _prior(nw, prior)
                got = extra + _cost(
                    values, weights, variance, x, y, nw, ngx, ngy, warps, greys, sources, mine, best - extra
                )
                if got < best:
                    best, w, gx, gy = got, nw, ngx, ngy
            planes[row, column, 0] = w
            planes[row, column, 1] = gx
            planes[row, column, 2] = gy
            cost[row, column] = best
