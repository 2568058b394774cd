"""Blending of the splats of a tile, front to back, and its derivative, back to front.

A tile keeps the state of its pixels (transmittance, colours...) in small arrays. For every splat of its
depth-sorted list, and every row that the splat crosses, the chord of pixels with alpha above 1/255 is handled
eight at a time.
"""

import math

import numpy as np

from nas3r.render.compositing import MAX_ALPHA, MIN_TRANSMITTANCE
from nas3r.render.cpu.kernels.binning import TILE_HEIGHT, TILE_WIDTH, pixels_between
from nas3r.render.cpu.kernels.columns import (
    BLUE,
    COLUMNS,
    DEPTH,
    GREEN,
    HALF_CHORD,
    INVERSE_RADIUS_Y,
    LOG2_OPACITY,
    OPACITY,
    RADIUS_Y,
    RED,
    SLOPE,
    XX,
    XY,
    YY,
    X,
    Y,
)
from nas3r.render.cpu.kernels.compile import helper, kernel
from nas3r.render.cpu.kernels.simd import (
    LANES,
    any_lane,
    broadcast,
    count_lanes,
    exp2,
    fma,
    lane_indices,
    load,
    maximum,
    minimum,
    prefetch_to_read,
    prefetch_to_write,
    select,
    sqrt,
    store,
    store_as_int,
    sum_each,
    sum_lanes,
)

PLANES = 5  # red, green, blue, depth, alpha
MOMENTS = 10  # floats per entry that `blend_backward` writes

_HALF = np.float32(0.5)
_LOG2_E = np.float32(math.log2(math.e))
_LOG2_MAX_ALPHA = np.float32(math.log2(MAX_ALPHA))
_LOG2_MIN_ALPHA = np.float32(-math.log2(255))
_MIN_TRANSMITTANCE = np.float32(MIN_TRANSMITTANCE)
_SLACK = np.float32(1 + 1e-4)  # chords are a little too long rather than too short; alpha decides

# Rows of a tile's state have room for a vector that starts at the last pixel.
_PITCH = TILE_WIDTH + LANES
_PLANE = TILE_HEIGHT * _PITCH

_BATCH = 32  # splats whose chords are found together
_PREFETCH = 8  # splats ahead whose rows of the table and of the moments are asked for


@kernel
def tile_corners(tile, grid, height, width):
    """The image of a tile and its pixels: (image, y0, y1, x0, x1), ends excluded."""
    tiles_y, tiles_x = grid
    image, ty, tx = tile // (tiles_y * tiles_x), tile // tiles_x % tiles_y, tile % tiles_x
    y0, x0 = ty * TILE_HEIGHT, tx * TILE_WIDTH
    return image, y0, min(y0 + TILE_HEIGHT, height), x0, min(x0 + TILE_WIDTH, width)


@helper
def _list_chords(table, owners, first, step, size, tile, tops, bounds, coefficients):
    """Finds the chords of several splats in a tile, ahead of blending: no address waits for a square root.

    Args:
        table: Splats.
        owners: Their rows in the table, in the order of the tile's list.
        first: Position in the list of the first splat wanted.
        step: 1 to go to the back, -1 to the front.
        size: Number of splats.
        tile: (y0, y1, x0, x1).
        tops: Written: first row of each splat and the row after its last [size, 2].
        bounds: Written: first pixel of each chord and the pixel after its last [size, 2, TILE_HEIGHT].
        coefficients: Written: p1 and p0 in log2(alpha) = (p2 dx + p1) dx + p0 [size, 2, TILE_HEIGHT].
    """
    y0, y1, x0, x1 = tile
    for i in range(size):
        k = first + i * step
        ahead = min(max(k + _PREFETCH * step, 0), len(owners) - 1)
        prefetch_to_read(table, owners[ahead] * COLUMNS)
        owner = owners[k]
        x, y, radius = table[owner, X], table[owner, Y], table[owner, RADIUS_Y]
        top, bottom = pixels_between(y - radius, y + radius, y0, y1)
        tops[i, 0], tops[i, 1] = top, bottom
        at = i * 2 * TILE_HEIGHT
        dy = lane_indices() + (np.float32(top) + _HALF - y)
        for _ in range(top, bottom, LANES):
            u = dy * table[owner, INVERSE_RADIUS_Y]
            half = sqrt(maximum(_SLACK - u * u, np.float32(0))) * table[owner, HALF_CHORD]
            middle = x - dy * table[owner, SLOPE]
            # As in pixels_between.
            store_as_int(bounds, at, maximum(middle - half + np.float32(0.4999), np.float32(x0)))
            store_as_int(bounds, at + TILE_HEIGHT, minimum(middle + half + _HALF, np.float32(x1)))
            p0 = dy * dy * (-_HALF * _LOG2_E * table[owner, YY]) + table[owner, LOG2_OPACITY]
            store(coefficients, at, dy * (-_LOG2_E * table[owner, XY]))
            store(coefficients, at + TILE_HEIGHT, p0)
            dy = dy + np.float32(LANES)
            at += LANES


@helper
def _log2_alpha(dx, p2, p1, p0):
    """log2(alpha) of eight pixels of a chord. Forward and backward must agree to the bit."""
    return fma(fma(dx, broadcast(p2), p1), dx, p0)


@helper
def _row_coefficients(table, owner, dy):
    """Coefficients (p2, p1, p0) of log2(alpha) = (p2 dx + p1) dx + p0 along a row."""
    p2 = -_HALF * _LOG2_E * table[owner, XX]
    p1 = -_LOG2_E * table[owner, XY] * dy
    p0 = table[owner, LOG2_OPACITY] - _HALF * _LOG2_E * table[owner, YY] * dy * dy
    return p2, p1, p0


@kernel
def blend(start, stop, table, starts, owners, grid, median, planes, final, stops, index):
    """Blends the tiles start..stop.

    Args:
        start: First tile.
        stop: Tile after the last.
        table: Splats [images * n, COLUMNS].
        starts: The list of tile t is owners[starts[t] : starts[t + 1]].
        owners: Row in the table of each entry, by tile and depth.
        grid: Tiles (vertically, horizontally) of an image.
        median: Whether to fill `index`.
        planes: Written: red, green, blue, depth and alpha [images, PLANES, h, w].
        final: Written: transmittance behind the last splat [images, h, w].
        stops: Written: position in the tile's list of the splat that ended the pixel, else infinity.
        index: Written if `median`: the Gaussian at which half of alpha is reached, or -1 [images, h, w].
    """
    height, width = final.shape[1:]
    state = np.empty((2 + PLANES) * _PLANE, np.float32)
    for tile in range(start, stop):
        image, y0, y1, x0, x1 = tile_corners(tile, grid, height, width)
        tile_owners = owners[starts[tile] : starts[tile + 1]]
        _clear(state, y1 - y0, x1 - x0)
        _blend_tile(table, tile_owners, (y0, y1, x0, x1), state)
        for y in range(y0, y1):
            for x in range(x0, x1):
                at = (y - y0) * _PITCH + x - x0
                final[image, y, x] = abs(state[at])
                stops[image, y, x] = state[_PLANE + at]
                for plane in range(PLANES):
                    planes[image, plane, y, x] = state[(2 + plane) * _PLANE + at]
        if median:
            _median_tile(table, tile_owners, image, y0, y1, x0, x1, final, stops, index)


@kernel
def _clear(state, rows, columns):
    """Transmittance 1 (negative in the padding: ended), no end yet, nothing seen."""
    state[:_PLANE] = -1
    for row in range(rows):
        state[row * _PITCH : row * _PITCH + columns] = 1
    state[_PLANE : 2 * _PLANE] = np.inf
    state[2 * _PLANE :] = 0


@kernel
def _blend_tile(table, owners, tile, state):
    """Blends a depth-sorted list of splats into the state of a tile."""
    tops = np.empty((_BATCH, 2), np.int32)
    bounds = np.empty((_BATCH, 2, TILE_HEIGHT), np.int32)
    coefficients = np.empty((_BATCH, 2, TILE_HEIGHT), np.float32)
    y0, y1, x0, x1 = tile
    live, zero = (y1 - y0) * (x1 - x0), np.float32(0)
    for first in range(0, len(owners), _BATCH):
        if live == 0:
            break
        size = min(_BATCH, len(owners) - first)
        _list_chords(table, owners, first, 1, size, tile, tops, bounds, coefficients)
        for i in range(size):
            owner = owners[first + i]
            position = np.float32(first + i)
            offset = _HALF - table[owner, X]
            p2 = -_HALF * _LOG2_E * table[owner, XX]
            cap = min(table[owner, LOG2_OPACITY], _LOG2_MAX_ALPHA)
            red, green, blue = table[owner, RED], table[owner, GREEN], table[owner, BLUE]
            depth = table[owner, DEPTH]
            top = tops[i, 0]
            for row in range(tops[i, 1] - top):
                p1, p0 = coefficients[i, 0, row], coefficients[i, 1, row]
                x, end = bounds[i, 0, row], bounds[i, 1, row]
                place = (top + row - y0) * _PITCH - x0
                while x < end:
                    at = place + x
                    dx = lane_indices() + (np.float32(x) + offset)
                    x += LANES
                    t = load(state, at)
                    not_ended = t > zero
                    if not any_lane(not_ended):
                        continue
                    power = _log2_alpha(dx, p2, p1, p0)
                    seen = (power >= _LOG2_MIN_ALPHA) & not_ended
                    alpha = select(seen, exp2(minimum(power, cap)), zero)
                    after = t - t * alpha
                    stopped = seen & (after < _MIN_TRANSMITTANCE)
                    if any_lane(stopped):
                        live -= count_lanes(stopped)
                        alpha = select(stopped, zero, alpha)
                        after = select(stopped, zero - t, after)
                        store(state, _PLANE + at, select(stopped, position, load(state, _PLANE + at)))
                    store(state, at, after)
                    weight = alpha * t
                    at += 2 * _PLANE
                    store(state, at, fma(weight, red, load(state, at)))
                    at += _PLANE
                    store(state, at, fma(weight, green, load(state, at)))
                    at += _PLANE
                    store(state, at, fma(weight, blue, load(state, at)))
                    at += _PLANE
                    store(state, at, fma(weight, depth, load(state, at)))
                    at += _PLANE
                    store(state, at, weight + load(state, at))


@kernel
def _median_tile(table, owners, image, y0, y1, x0, x1, final, stops, index):
    """Second pass over a tile, when alpha is known; one pixel at a time, for it is rarely asked for."""
    n = len(table) // len(final)
    for y in range(y0, y1):
        for x in range(x0, x1):
            index[image, y, x] = -1
            enough = _HALF + _HALF * final[image, y, x]
            t = np.float32(1)
            for k in range(len(owners)):
                if np.float32(k) >= stops[image, y, x] or (t <= enough and k > 0):
                    break
                owner = owners[k]
                dx, dy = np.float32(x) + _HALF - table[owner, X], np.float32(y) + _HALF - table[owner, Y]
                p2, p1, p0 = _row_coefficients(table, owner, dy)
                power = (p2 * dx + p1) * dx + p0
                if power >= _LOG2_MIN_ALPHA:
                    t *= 1 - np.float32(2) ** min(power, table[owner, LOG2_OPACITY], _LOG2_MAX_ALPHA)
                    if t <= enough:
                        index[image, y, x] = owners[k] - image * n


@kernel
def blend_backward(start, stop, table, starts, owners, entries, grid, grad_planes, final, stops, moments):
    """Derivative of `blend` for the tiles start..stop.

    Args:
        start: First tile.
        stop: Tile after the last.
        table: As in `blend`.
        starts: As in `blend`.
        owners: As in `blend`.
        entries: Row in `moments` of each entry of the tiles' lists.
        grid: As in `blend`.
        grad_planes: Gradients of the planes [images, PLANES, h, w].
        final: From `blend`.
        stops: From `blend`.
        moments: Written for every entry: with p the gradient of log(alpha) at a pixel and (dx, dy) its
            offset from the splat's centre, the sums of p, p dx, p dy, p dx dx, p dx dy and p dy dy over the
            tile's pixels, then the gradients of red, green, blue and depth.
    """
    height, width = final.shape[1:]
    state = np.empty((3 + PLANES) * _PLANE, np.float32)
    for tile in range(start, stop):
        image, y0, y1, x0, x1 = tile_corners(tile, grid, height, width)
        state[:] = 0
        end = np.float32(0)  # behind the last splat that some pixel sees
        for y in range(y0, y1):
            for x in range(x0, x1):
                at = (y - y0) * _PITCH + x - x0
                state[at] = final[image, y, x]
                state[2 * _PLANE + at] = stops[image, y, x]
                end = max(end, stops[image, y, x])
                for plane in range(PLANES):
                    state[(3 + plane) * _PLANE + at] = grad_planes[image, plane, y, x]
        begin, length = starts[tile], starts[tile + 1] - starts[tile]
        seen = int(min(end, np.float32(length)))
        for k in range(begin + seen, begin + length):
            for c in range(MOMENTS):
                moments[entries[k], c] = 0
        tile_owners, tile_entries = owners[begin : begin + seen], entries[begin : begin + seen]
        _blend_tile_backward(table, tile_owners, tile_entries, (y0, y1, x0, x1), state, moments)


@kernel
def _blend_tile_backward(table, owners, entries, tile, state, moments):
    """Walks a tile's list from back to front and writes the moments of its entries."""
    tops = np.empty((_BATCH, 2), np.int32)
    bounds = np.empty((_BATCH, 2, TILE_HEIGHT), np.int32)
    coefficients = np.empty((_BATCH, 2, TILE_HEIGHT), np.float32)
    for last in range(len(owners) - 1, -1, -_BATCH):
        size = min(_BATCH, last + 1)
        _list_chords(table, owners, last, -1, size, tile, tops, bounds, coefficients)
        for i in range(size):
            row = entries[max(last - i - _PREFETCH, 0)] * MOMENTS
            prefetch_to_write(moments, row)
            prefetch_to_write(moments, row + MOMENTS - 1)
            _blend_splat_backward(
                table, owners[last - i], last - i, tile, i, tops, bounds, coefficients,
                state, moments, entries[last - i],
            )  # fmt: skip


@helper
def _blend_splat_backward(table, owner, position, tile, i, tops, bounds, coefficients, state, moments, entry):
    """Moments of one entry, from its chords."""
    zero = np.float32(0)
    m = mx = my = mxx = mxy = myy = broadcast(zero)
    g_red = g_green = g_blue = g_depth = broadcast(zero)
    limit = np.float32(position)
    offset = _HALF - table[owner, X]
    p2 = -_HALF * _LOG2_E * table[owner, XX]
    cap = min(table[owner, LOG2_OPACITY], _LOG2_MAX_ALPHA)
    red, green, blue = table[owner, RED], table[owner, GREEN], table[owner, BLUE]
    depth = table[owner, DEPTH]
    top = tops[i, 0]
    for row in range(tops[i, 1] - top):
        dy = np.float32(top + row) + _HALF - table[owner, Y]
        p1, p0 = coefficients[i, 0, row], coefficients[i, 1, row]
        x, end = bounds[i, 0, row], bounds[i, 1, row]
        place = (top + row - tile[0]) * _PITCH - tile[2]
        while x < end:
            at = place + x
            dx = lane_indices() + (np.float32(x) + offset)
            x += LANES
            not_ended = load(state, 2 * _PLANE + at) > limit
            if not any_lane(not_ended):
                continue
            power = _log2_alpha(dx, p2, p1, p0)
            alpha = select((power >= _LOG2_MIN_ALPHA) & not_ended, exp2(minimum(power, cap)), zero)
            inverse = np.float32(1) / (np.float32(1) - alpha)
            t = load(state, at) * inverse  # in front of this splat
            store(state, at, t)
            weight = alpha * t

            at += 3 * _PLANE
            grad = load(state, at)
            g_red = fma(weight, grad, g_red)
            towards = grad * red
            at += _PLANE
            grad = load(state, at)
            g_green = fma(weight, grad, g_green)
            towards = fma(grad, green, towards)
            at += _PLANE
            grad = load(state, at)
            g_blue = fma(weight, grad, g_blue)
            towards = fma(grad, blue, towards)
            at += _PLANE
            grad = load(state, at)
            g_depth = fma(weight, grad, g_depth)
            towards = fma(grad, depth, towards)
            towards = towards + load(state, at + _PLANE)

            at -= 5 * _PLANE
            behind = load(state, at)  # what the splats behind add to the loss
            store(state, at, fma(weight, towards, behind))
            p = alpha * (t * towards - behind * inverse)
            p = select(power <= _LOG2_MAX_ALPHA, p, zero)  # a saturated alpha does not move

            px = p * dx
            py = p * dy
            m = m + p
            mx = mx + px
            mxx = fma(px, dx, mxx)
            my = my + py
            mxy = fma(py, dx, mxy)
            myy = fma(py, dy, myy)
    store(moments, entry * MOMENTS, sum_each(m, mx, my, mxx, mxy, myy, g_red, g_green))
    moments[entry, 8] = sum_lanes(g_blue)
    moments[entry, 9] = sum_lanes(g_depth)


@kernel
def gather_gradients(start, stop, table, offsets, moments, grad):
    """Gradients of splats start..stop: adds their entries' moments in order, and chains to the columns."""
    for i in range(start, stop):
        for c in range(COLUMNS):
            grad[i, c] = 0
        first, end = offsets[i], offsets[i + 1]
        if first == end:
            continue
        for e in range(first + 1, end):
            for c in range(MOMENTS):
                moments[first, c] += moments[e, c]
        m, mx, my = moments[first, 0], moments[first, 1], moments[first, 2]
        grad[i, X] = table[i, XX] * mx + table[i, XY] * my
        grad[i, Y] = table[i, XY] * mx + table[i, YY] * my
        grad[i, XX] = -_HALF * moments[first, 3]
        grad[i, XY] = -moments[first, 4]
        grad[i, YY] = -_HALF * moments[first, 5]
        grad[i, OPACITY] = m / table[i, OPACITY]
        for c in range(RED, DEPTH + 1):
            grad[i, c] = moments[first, c]
