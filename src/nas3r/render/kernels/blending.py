"""Blending of a tile's splats, forward and backward (scalar version)."""

import numpy as np

from nas3r.render.kernels.binning import TILE_HEIGHT, TILE_WIDTH
from nas3r.render.kernels.compile import kernel

MAX_ALPHA = np.float32(0.99)
MIN_ALPHA = np.float32(1 / 255)
MIN_TRANSMITTANCE = np.float32(1e-4)


@kernel
def blend(start, stop, splats, radii, starts, entries, owners, grid, out, last, final, index):
    """Blends the tiles start..stop; fills their part of the planes."""
    tiles_y, tiles_x = grid
    height, width = last.shape[1:]
    half = np.float32(0.5)
    for tile in range(start, stop):
        image, ty, tx = tile // (tiles_y * tiles_x), tile // tiles_x % tiles_y, tile % tiles_x
        y0, x0 = ty * TILE_HEIGHT, tx * TILE_WIDTH
        y1, x1 = min(y0 + TILE_HEIGHT, height), min(x0 + TILE_WIDTH, width)
        out[image, :, y0:y1, x0:x1] = 0
        last[image, y0:y1, x0:x1] = -1
        final[image, y0:y1, x0:x1] = 1
        live = (y1 - y0) * (x1 - x0)
        for k in range(starts[tile], starts[tile + 1]):
            if live == 0:
                break
            g = owners[entries[k]]
            s = splats[g]
            rx, ry = radii[g, 0], radii[g, 1]
            for y in range(
                max(y0, int(np.ceil(s[1] - ry - half))), min(y1, int(np.floor(s[1] + ry - half)) + 1)
            ):
                dy = np.float32(y) + half - s[1]
                for x in range(
                    max(x0, int(np.ceil(s[0] - rx - half))), min(x1, int(np.floor(s[0] + rx - half)) + 1)
                ):
                    t = final[image, y, x]
                    if t < 0:
                        continue
                    dx = np.float32(x) + half - s[0]
                    power = min(-half * (s[2] * dx * dx + s[4] * dy * dy) - s[3] * dx * dy, np.float32(0))
                    alpha = min(s[5] * np.exp(power), MAX_ALPHA)
                    if alpha < MIN_ALPHA:
                        continue
                    after = t * (1 - alpha)
                    if after < MIN_TRANSMITTANCE:
                        final[image, y, x] = -t
                        live -= 1
                        continue
                    w = alpha * t
                    for c in range(4):
                        out[image, c, y, x] += w * s[6 + c]
                    final[image, y, x] = after
                    last[image, y, x] = k
        for y in range(y0, y1):
            for x in range(x0, x1):
                final[image, y, x] = abs(final[image, y, x])
                out[image, 4, y, x] = 1 - final[image, y, x]
        if index.shape[0]:
            _median(
                image,
                y0,
                y1,
                x0,
                x1,
                splats,
                radii,
                starts[tile],
                starts[tile + 1],
                entries,
                owners,
                final,
                index,
            )


@kernel
def _median(image, y0, y1, x0, x1, splats, radii, begin, end, entries, owners, final, index):
    half = np.float32(0.5)
    n = splats.shape[0] // final.shape[0]
    for y in range(y0, y1):
        for x in range(x0, x1):
            index[image, y, x] = -1
            target = 1 - half * (1 - final[image, y, x])
            t = np.float32(1)
            for k in range(begin, end):
                s = splats[owners[entries[k]]]
                dx, dy = np.float32(x) + half - s[0], np.float32(y) + half - s[1]
                power = min(-half * (s[2] * dx * dx + s[4] * dy * dy) - s[3] * dx * dy, np.float32(0))
                alpha = min(s[5] * np.exp(power), MAX_ALPHA)
                if alpha >= MIN_ALPHA:
                    t *= 1 - alpha
                    if t <= target:
                        index[image, y, x] = owners[entries[k]] - image * n
                        break


@kernel
def blend_backward(
    start, stop, splats, radii, starts, entries, owners, grid, last, final, grad_out, grad_entries
):
    """Gradients of the entries of tiles start..stop."""
    tiles_y, tiles_x = grid
    height, width = last.shape[1:]
    half = np.float32(0.5)
    t_now = np.empty((TILE_HEIGHT, TILE_WIDTH), np.float32)
    behind = np.empty((TILE_HEIGHT, TILE_WIDTH), np.float32)
    for tile in range(start, stop):
        image, ty, tx = tile // (tiles_y * tiles_x), tile // tiles_x % tiles_y, tile % tiles_x
        y0, x0 = ty * TILE_HEIGHT, tx * TILE_WIDTH
        y1, x1 = min(y0 + TILE_HEIGHT, height), min(x0 + TILE_WIDTH, width)
        for y in range(y0, y1):
            for x in range(x0, x1):
                t_now[y - y0, x - x0] = final[image, y, x]
                behind[y - y0, x - x0] = -final[image, y, x] * grad_out[image, 4, y, x]
        for k in range(starts[tile + 1] - 1, starts[tile] - 1, -1):
            g = owners[entries[k]]
            s = splats[g]
            grad = grad_entries[entries[k]]
            grad[:] = 0
            rx, ry = radii[g, 0], radii[g, 1]
            for y in range(
                max(y0, int(np.ceil(s[1] - ry - half))), min(y1, int(np.floor(s[1] + ry - half)) + 1)
            ):
                dy = np.float32(y) + half - s[1]
                for x in range(
                    max(x0, int(np.ceil(s[0] - rx - half))), min(x1, int(np.floor(s[0] + rx - half)) + 1)
                ):
                    if last[image, y, x] < k:
                        continue
                    dx = np.float32(x) + half - s[0]
                    power = min(-half * (s[2] * dx * dx + s[4] * dy * dy) - s[3] * dx * dy, np.float32(0))
                    falloff = np.exp(power)
                    raw = s[5] * falloff
                    alpha = min(raw, MAX_ALPHA)
                    if alpha < MIN_ALPHA:
                        continue
                    inverse = 1 / (1 - alpha)
                    t = t_now[y - y0, x - x0] * inverse
                    t_now[y - y0, x - x0] = t
                    w = alpha * t
                    dot = np.float32(0)
                    for c in range(4):
                        dot += s[6 + c] * grad_out[image, c, y, x]
                        grad[6 + c] += w * grad_out[image, c, y, x]
                    grad_alpha = t * dot - behind[y - y0, x - x0] * inverse
                    behind[y - y0, x - x0] += w * dot
                    if raw <= MAX_ALPHA:
                        grad[5] += falloff * grad_alpha
                        p = raw * grad_alpha
                        grad[0] += p * (s[2] * dx + s[3] * dy)
                        grad[1] += p * (s[3] * dx + s[4] * dy)
                        grad[2] -= half * p * dx * dx
                        grad[3] -= p * dx * dy
                        grad[4] -= half * p * dy * dy


@kernel
def sum_entries(start, stop, offsets, grad_entries, grad):
    """Adds the entries of splats start..stop, in order."""
    for i in range(start, stop):
        grad[i] = 0
        for e in range(offsets[i], offsets[i + 1]):
            for c in range(10):
                grad[i, c] += grad_entries[e, c]
