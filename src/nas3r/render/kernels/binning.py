"""Which splats matter to which tile, in depth order."""

import numpy as np

from nas3r.render.kernels.compile import kernel

TILE_HEIGHT = 16
TILE_WIDTH = 64
CHUNK = 2048  # splats counted and scattered together


@kernel
def tile_box(x, y, rx, ry, height, width):
    """Tiles (x0, x1, y0, y1), ends excluded, that hold a pixel centre of the box x +- rx, y +- ry."""
    if not rx > 0:
        return 0, 0, 0, 0
    first_x = max(np.ceil(x - rx - np.float32(0.5)), np.float32(0))
    last_x = min(np.floor(x + rx - np.float32(0.5)), np.float32(width - 1))
    first_y = max(np.ceil(y - ry - np.float32(0.5)), np.float32(0))
    last_y = min(np.floor(y + ry - np.float32(0.5)), np.float32(height - 1))
    if first_x > last_x or first_y > last_y:
        return 0, 0, 0, 0
    return (
        int(first_x) // TILE_WIDTH,
        int(last_x) // TILE_WIDTH + 1,
        int(first_y) // TILE_HEIGHT,
        int(last_y) // TILE_HEIGHT + 1,
    )


@kernel
def count_entries(start, stop, splats, radii, height, width, per_splat, per_tile):
    """Counts, for chunks start..stop, the tiles of each splat and the entries of each tile.

    per_splat is [images, n], per_tile [images, chunks, tiles_y, tiles_x].
    """
    chunks = per_tile.shape[1]
    for task in range(start, stop):
        image, chunk = task // chunks, task % chunks
        per_tile[image, chunk] = 0
        for i in range(chunk * CHUNK, min((chunk + 1) * CHUNK, splats.shape[1])):
            s = splats[image, i]
            x0, x1, y0, y1 = tile_box(s[0], s[1], radii[image, i, 0], radii[image, i, 1], height, width)
            per_splat[image, i] = (x1 - x0) * (y1 - y0)
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    per_tile[image, chunk, ty, tx] += 1


@kernel
def scatter_entries(start, stop, splats, radii, height, width, offsets, cursors, keys, entries, owners):
    """Writes the entries of chunks start..stop into the tiles' lists.

    offsets [images, n] is each splat's first entry id, cursors [images, chunks, tiles_y, tiles_x] where each
    chunk writes in a tile's list. keys and entries are list-ordered, owners maps entry ids to splats.
    """
    chunks = cursors.shape[1]
    for task in range(start, stop):
        image, chunk = task // chunks, task % chunks
        for i in range(chunk * CHUNK, min((chunk + 1) * CHUNK, splats.shape[1])):
            s = splats[image, i]
            x0, x1, y0, y1 = tile_box(s[0], s[1], radii[image, i, 0], radii[image, i, 1], height, width)
            entry = offsets[image, i]
            key = splats[image, i, 9:10].view(np.uint32)[0]
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    at = cursors[image, chunk, ty, tx]
                    cursors[image, chunk, ty, tx] = at + 1
                    keys[at] = key
                    entries[at] = entry
                    owners[entry] = image * splats.shape[1] + i
                    entry += 1


@kernel
def sort_tiles(start, stop, starts, keys, entries):
    """Sorts the lists of tiles start..stop by key; equal keys keep their order (the splats' order)."""
    for tile in range(start, stop):
        a, b = starts[tile], starts[tile + 1]
        if b - a > 1:
            _radix_sort(keys[a:b], entries[a:b])


@kernel
def _radix_sort(keys, values):
    """Stable least-significant-digit radix sort of positive floats seen as uint32."""
    n = len(keys)
    other_keys, other_values = np.empty_like(keys), np.empty_like(values)
    counts = np.zeros((3, 2048), np.int32)
    for i in range(n):
        k = keys[i]
        counts[0, k & 2047] += 1
        counts[1, (k >> 11) & 2047] += 1
        counts[2, k >> 22] += 1
    swapped = False
    for digit in range(3):
        shift = np.uint32(11 * digit)
        count = counts[digit]
        if count[(keys[0] >> shift) & 2047] == n:
            continue  # all keys agree in this digit
        total = 0
        for i in range(2048):
            c = count[i]
            count[i] = total
            total += c
        source_keys, source_values = (other_keys, other_values) if swapped else (keys, values)
        target_keys, target_values = (keys, values) if swapped else (other_keys, other_values)
        for i in range(n):
            k = source_keys[i]
            at = count[(k >> shift) & 2047]
            count[(k >> shift) & 2047] = at + 1
            target_keys[at] = k
            target_values[at] = source_values[i]
        swapped = not swapped
    if swapped:
        keys[:] = other_keys
        values[:] = other_values
