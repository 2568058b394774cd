"""Which splats matter to which tile, in depth order."""

import numpy as np

from nas3r.render.cpu.kernels.columns import DEPTH, RADIUS_X, RADIUS_Y, X, Y
from nas3r.render.cpu.kernels.compile import helper, kernel
from nas3r.render.cpu.kernels.simd import bits_of

TILE_HEIGHT = 16
TILE_WIDTH = 128
CHUNK = 2048  # splats counted and scattered together


@helper
def pixels_between(low, high, begin, end):
    """Pixels (first, after the last) of begin..end with their centre between two coordinates.

    Conversion to int cuts off, which rounds down since begin >= 0; library calls to round would cost more
    than the pixels. May include a pixel whose centre is up to 1e-4 outside.
    """
    low, high = low + np.float32(0.4999), high + np.float32(0.5)
    return int(max(low, np.float32(begin))), int(min(high, np.float32(end)))


@helper
def tile_box(table, image, i, height, width):
    """Tiles (x0, x1, y0, y1), ends excluded, that hold a pixel centre of a splat's bounding box."""
    x, y = table[image, i, X], table[image, i, Y]
    rx, ry = table[image, i, RADIUS_X], table[image, i, RADIUS_Y]
    x0, x1 = pixels_between(x - rx, x + rx, 0, width)
    y0, y1 = pixels_between(y - ry, y + ry, 0, height)
    if rx <= 0 or x0 >= x1 or y0 >= y1:
        return 0, 0, 0, 0
    return x0 // TILE_WIDTH, (x1 - 1) // TILE_WIDTH + 1, y0 // TILE_HEIGHT, (y1 - 1) // TILE_HEIGHT + 1


@kernel
def count_entries(start, stop, table, height, width, per_splat, per_tile):
    """Counts, for chunks start..stop of splats, the tiles of each splat and the entries of each tile.

    Args:
        start: First chunk.
        stop: Chunk after the last.
        table: Splats [images, n, COLUMNS].
        height: Of the images.
        width: Of the images.
        per_splat: Written [images, n].
        per_tile: Written [images, chunks, tiles_y, tiles_x].
    """
    chunks = per_tile.shape[1]
    for task in range(start, stop):
        image, chunk = task // chunks, task % chunks
        per_tile[image, chunk] = 0
        for i in range(chunk * CHUNK, min((chunk + 1) * CHUNK, table.shape[1])):
            x0, x1, y0, y1 = tile_box(table, image, i, height, width)
            per_splat[image, i] = (x1 - x0) * (y1 - y0)
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    per_tile[image, chunk, ty, tx] += 1


@kernel
def scatter_entries(start, stop, table, height, width, offsets, cursors, keys, entries, splat_of_entry):
    """Writes the entries of chunks start..stop of splats into the tiles' lists.

    Args:
        start: First chunk.
        stop: Chunk after the last.
        table: Splats [images, n, COLUMNS].
        height: Of the images.
        width: Of the images.
        offsets: First entry of each splat [images * n + 1].
        cursors: Where each chunk starts to write in each tile's list [images, chunks, tiles_y, tiles_x];
            advanced.
        keys: Written in list order: the depth's bits, which sort like the depth since it is positive.
        entries: Written in list order: entry numbers.
        splat_of_entry: Written in entry order: rows of the table.
    """
    chunks, n = cursors.shape[1], table.shape[1]
    for task in range(start, stop):
        image, chunk = task // chunks, task % chunks
        for i in range(chunk * CHUNK, min((chunk + 1) * CHUNK, n)):
            x0, x1, y0, y1 = tile_box(table, image, i, height, width)
            entry = offsets[image * n + i]
            key = bits_of(table[image, i, DEPTH])
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    at = cursors[image, chunk, ty, tx]
                    cursors[image, chunk, ty, tx] = at + 1
                    keys[at] = key
                    entries[at] = entry
                    splat_of_entry[entry] = image * n + i
                    entry += 1


@kernel
def sort_tiles(start, stop, starts, keys, entries, splat_of_entry, owners):
    """Sorts the lists of tiles start..stop by key; equal keys keep their order, that of the splats.

    Writes `owners`: rows of the table in list order.
    """
    for tile in range(start, stop):
        a, b = starts[tile], starts[tile + 1]
        if b - a > 1:
            _radix_sort(keys[a:b], entries[a:b])
        for k in range(a, b):
            owners[k] = splat_of_entry[entries[k]]


@helper
def _radix_sort(keys, values):
    """Stable least-significant-digit radix sort of positive floats seen as uint32."""
    n = len(keys)
    other_keys, other_values = np.empty(n, np.uint32), np.empty(n, np.int32)
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
        for i in range(n):
            keys[i] = other_keys[i]
            values[i] = other_values[i]
