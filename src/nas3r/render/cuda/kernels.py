"""Triton kernels: blending of the splats of a tile, and its derivative.

One program has one tile. It goes through the tile's list front to back, or back to front for the derivative,
a block of splats at a time: what a block does to the pixels is computed as a matrix [pixels, splats], where
products and sums along the splats are scans. Pixels carry their transmittance from block to block.

Sizes are not specialised: a kernel is compiled once, not again for sizes that 16 divides.
"""

import triton
import triton.language as tl

from nas3r.render import compositing, projection
from nas3r.render.cuda import binning

BLOCK = tl.constexpr(16)  # splats of a tile that are blended together
COLUMNS = tl.constexpr(10)  # x, y; conic xx, xy, yy; opacity; red, green, blue; depth
PLANES = tl.constexpr(5)  # red, green, blue, depth, alpha
PAIRS = tl.constexpr(8)  # of a splat, whose gradients are read together
PADDED_COLUMNS = tl.constexpr(16)  # sizes in Triton are powers of two

TILE_HEIGHT = tl.constexpr(binning.TILE_HEIGHT)
TILE_WIDTH = tl.constexpr(binning.TILE_WIDTH)
TILE_PIXELS = tl.constexpr(binning.TILE_HEIGHT * binning.TILE_WIDTH)
MAX_ALPHA = tl.constexpr(compositing.MAX_ALPHA)
MIN_ALPHA = tl.constexpr(projection.MIN_ALPHA)
MIN_TRANSMITTANCE = tl.constexpr(compositing.MIN_TRANSMITTANCE)
MINUS_HALF_LOG2_E = tl.constexpr(-0.7213475204444817)


@triton.jit
def _pixels(height, width):
    """Pixels of the program's tile: their image, offsets in a plane, centres, and which are in the image."""
    tile = tl.program_id(0)
    tiles_y, tiles_x = tl.cdiv(height, TILE_HEIGHT), tl.cdiv(width, TILE_WIDTH)
    image = (tile // (tiles_y * tiles_x)).to(tl.int64)
    index = tl.arange(0, TILE_PIXELS)
    row = tile // tiles_x % tiles_y * TILE_HEIGHT + index // TILE_WIDTH
    column = tile % tiles_x * TILE_WIDTH + index % TILE_WIDTH
    inside = (row < height) & (column < width)
    return image, row * width + column, column.to(tl.float32) + 0.5, row.to(tl.float32) + 0.5, inside


@triton.jit
def _tile_list(starts):
    """First pair of the program's tile, and how many there are."""
    first = tl.load(starts + tl.program_id(0))
    return first, (tl.load(starts + tl.program_id(0) + 1) - first).to(tl.int32)


@triton.jit
def _alphas(rows, present, x, y):
    """Alpha of splats at pixels [pixels, splats], 0 where they are skipped; and what its derivative needs.

    The latter are the alpha before it is cut, offsets from the centres, and their product with the conics.
    """
    dx = x[:, None] - tl.load(rows, mask=present, other=0.0)[None, :]
    dy = y[:, None] - tl.load(rows + 1, mask=present, other=0.0)[None, :]
    xx = tl.load(rows + 2, mask=present, other=0.0)[None, :]
    xy = tl.load(rows + 3, mask=present, other=0.0)[None, :]
    yy = tl.load(rows + 4, mask=present, other=0.0)[None, :]
    opacity = tl.load(rows + 5, mask=present, other=0.0)[None, :]
    # Fused by name, not as the compiler likes: all kernels must agree to the bit on which splats are skipped.
    conic_dx = tl.fma(xx, dx, xy * dy)
    conic_dy = tl.fma(xy, dx, yy * dy)
    power = MINUS_HALF_LOG2_E * tl.fma(dx, conic_dx, dy * conic_dy)
    uncut = opacity * tl.exp2(tl.minimum(power, 0.0))
    alpha = tl.where(uncut >= MIN_ALPHA, tl.minimum(uncut, MAX_ALPHA), 0.0)
    return alpha, uncut, dx, dy, conic_dx, conic_dy


@triton.jit
def _weights(alpha, transmittance):
    """Weights and the transmittance behind each splat [pixels, splats].

    The latter only falls, so the first splat that would take it below the limit ends the pixel.
    """
    after = transmittance[:, None] * tl.cumprod(1 - alpha, axis=1)
    return tl.where(after >= MIN_TRANSMITTANCE, alpha * after / (1 - alpha), 0.0), after


@triton.jit
def _before(alpha, transmittance):
    """Transmittance in front of each splat [pixels, splats], the rearmost first, from that behind all."""
    return transmittance[:, None] / tl.cumprod(1 - alpha, axis=1)


@triton.jit(do_not_specialize=["height", "width"])
def blend(table, owners, starts, planes, final, stops, height, width):
    """Blends one tile.

    Args:
        table: Splats [splats, COLUMNS].
        owners: Row in the table of each pair, by tile and depth.
        starts: The list of tile t is owners[starts[t] : starts[t + 1]].
        planes: Written: red, green, blue, depth and alpha [images, PLANES, h, w].
        final: Written: transmittance behind the last splat [images, h, w].
        stops: Written: position in the tile's list of the splat that ends the pixel, else the list's length
            [images, h, w], int32.
        height: Of the images.
        width: Of the images.
    """
    image, pixel, x, y, inside = _pixels(height, width)
    first, count = _tile_list(starts)
    owners += first
    transmittance = tl.where(inside, 1.0, 0.0)  # below the limit once the pixel has ended
    behind = tl.zeros([TILE_PIXELS], tl.float32) + 1.0
    stop = tl.zeros([TILE_PIXELS], tl.int32) + count
    red = tl.zeros([TILE_PIXELS], tl.float32)
    green = tl.zeros([TILE_PIXELS], tl.float32)
    blue = tl.zeros([TILE_PIXELS], tl.float32)
    depth = tl.zeros([TILE_PIXELS], tl.float32)
    total = tl.zeros([TILE_PIXELS], tl.float32)
    at = 0
    while (at < count) & (tl.max(transmittance, axis=0) >= MIN_TRANSMITTANCE):
        pair = at + tl.arange(0, BLOCK)
        present = pair < count
        rows = table + tl.load(owners + pair, mask=present, other=0).to(tl.int64) * COLUMNS
        alpha, _, _, _, _, _ = _alphas(rows, present, x, y)
        weight, after = _weights(alpha, transmittance)
        transmittance = tl.min(after, axis=1)
        ended = after < MIN_TRANSMITTANCE
        behind = tl.minimum(behind, tl.min(tl.where(ended, 1.0, after), axis=1))
        stop = tl.minimum(stop, tl.min(tl.where(ended, pair[None, :], count), axis=1))
        red += tl.sum(weight * tl.load(rows + 6, mask=present, other=0.0)[None, :], axis=1)
        green += tl.sum(weight * tl.load(rows + 7, mask=present, other=0.0)[None, :], axis=1)
        blue += tl.sum(weight * tl.load(rows + 8, mask=present, other=0.0)[None, :], axis=1)
        depth += tl.sum(weight * tl.load(rows + 9, mask=present, other=0.0)[None, :], axis=1)
        total += tl.sum(weight, axis=1)
        at += BLOCK
    size = height * width
    target = planes + image * PLANES * size + pixel
    tl.store(target, red, mask=inside)
    tl.store(target + size, green, mask=inside)
    tl.store(target + 2 * size, blue, mask=inside)
    tl.store(target + 3 * size, depth, mask=inside)
    tl.store(target + 4 * size, total, mask=inside)
    tl.store(final + image * size + pixel, behind, mask=inside)
    tl.store(stops + image * size + pixel, stop, mask=inside)


@triton.jit(do_not_specialize=["splats", "height", "width"])
def find_median(table, owners, starts, planes, index, splats, height, width):
    """Finds the splats of the median depth in one tile, in a second pass when alpha is known.

    Args:
        table: As in `blend`.
        owners: As in `blend`.
        starts: As in `blend`.
        planes: From `blend`.
        index: Written: the splat at which half of alpha is reached, counted in its image, or -1
            [images, h, w], int32.
        splats: Of an image.
        height: Of the images.
        width: Of the images.
    """
    image, pixel, x, y, inside = _pixels(height, width)
    first, count = _tile_list(starts)
    owners += first
    size = height * width
    half = 0.5 * tl.load(planes + (image * PLANES + PLANES - 1) * size + pixel, mask=inside, other=0.0)
    transmittance = tl.where(inside, 1.0, 0.0)
    total = tl.zeros([TILE_PIXELS], tl.float32)
    found = tl.zeros([TILE_PIXELS], tl.int32) + count
    at = 0
    while (at < count) & (tl.max(transmittance, axis=0) >= MIN_TRANSMITTANCE):
        pair = at + tl.arange(0, BLOCK)
        present = pair < count
        rows = table + tl.load(owners + pair, mask=present, other=0).to(tl.int64) * COLUMNS
        alpha, _, _, _, _, _ = _alphas(rows, present, x, y)
        weight, after = _weights(alpha, transmittance)
        transmittance = tl.min(after, axis=1)
        reached = (total[:, None] + tl.cumsum(weight, axis=1) >= half[:, None]) & (weight > 0)
        found = tl.minimum(found, tl.min(tl.where(reached, pair[None, :], count), axis=1))
        total += tl.sum(weight, axis=1)
        at += BLOCK
    owner = tl.load(owners + found, mask=found < count, other=0)
    median = tl.where(found < count, owner - image * splats, -1)
    tl.store(index + image * size + pixel, median.to(tl.int32), mask=inside)


@triton.jit(do_not_specialize=["height", "width"])
def blend_backward(table, owners, slots, starts, grad_planes, final, stops, gradients, height, width):
    """Derivative of `blend` for one tile, from back to front.

    From front to back, what is behind a splat would be a small difference of large sums.

    Args:
        table: As in `blend`.
        owners: As in `blend`.
        slots: Row in `gradients` of each pair.
        starts: As in `blend`.
        grad_planes: Gradients of the planes [images, PLANES, h, w].
        final: From `blend`.
        stops: From `blend`.
        gradients: Written where some pixel may see the splat: the tile's part of the table's gradient
            [pairs, COLUMNS].
        height: Of the images.
        width: Of the images.
    """
    image, pixel, x, y, inside = _pixels(height, width)
    first, count = _tile_list(starts)
    owners += first
    slots += first
    size = height * width
    source = grad_planes + image * PLANES * size + pixel
    grad_red = tl.load(source, mask=inside, other=0.0)[:, None]
    grad_green = tl.load(source + size, mask=inside, other=0.0)[:, None]
    grad_blue = tl.load(source + 2 * size, mask=inside, other=0.0)[:, None]
    grad_depth = tl.load(source + 3 * size, mask=inside, other=0.0)[:, None]
    grad_alpha = tl.load(source + 4 * size, mask=inside, other=0.0)[:, None]
    stop = tl.load(stops + image * size + pixel, mask=inside, other=0)
    transmittance = tl.load(final + image * size + pixel, mask=inside, other=1.0)
    behind = tl.zeros([TILE_PIXELS], tl.float32)  # what the splats behind add to the loss
    at = tl.cdiv(tl.max(stop, axis=0), BLOCK) * BLOCK - BLOCK
    while at >= 0:
        pair = at + BLOCK - 1 - tl.arange(0, BLOCK)  # from the back, so that scans go to the front
        present = pair < count
        rows = table + tl.load(owners + pair, mask=present, other=0).to(tl.int64) * COLUMNS
        alpha, uncut, dx, dy, conic_dx, conic_dy = _alphas(rows, present, x, y)
        alpha = tl.where(pair[None, :] < stop[:, None], alpha, 0.0)
        before = _before(alpha, transmittance)
        transmittance = tl.max(before, axis=1)
        weight = alpha * before

        value = grad_red * tl.load(rows + 6, mask=present, other=0.0)[None, :] + grad_alpha
        value += grad_green * tl.load(rows + 7, mask=present, other=0.0)[None, :]
        value += grad_blue * tl.load(rows + 8, mask=present, other=0.0)[None, :]
        value += grad_depth * tl.load(rows + 9, mask=present, other=0.0)[None, :]
        added = weight * value
        from_here = behind[:, None] + tl.cumsum(added, axis=1)
        behind += tl.sum(added, axis=1)
        # Gradient of log(alpha). A saturated alpha does not move.
        grad = added - alpha * (from_here - added) / (1 - alpha)
        grad = tl.where(uncut <= MAX_ALPHA, grad, 0.0)

        target = gradients + tl.load(slots + pair, mask=present, other=0) * COLUMNS
        opacity = tl.load(rows + 5, mask=present, other=1.0)
        tl.store(target, tl.sum(grad * conic_dx, axis=0), mask=present)
        tl.store(target + 1, tl.sum(grad * conic_dy, axis=0), mask=present)
        tl.store(target + 2, tl.sum(-0.5 * grad * dx * dx, axis=0), mask=present)
        tl.store(target + 3, tl.sum(-grad * dx * dy, axis=0), mask=present)
        tl.store(target + 4, tl.sum(-0.5 * grad * dy * dy, axis=0), mask=present)
        tl.store(target + 5, tl.sum(grad, axis=0) / opacity, mask=present)
        tl.store(target + 6, tl.sum(weight * grad_red, axis=0), mask=present)
        tl.store(target + 7, tl.sum(weight * grad_green, axis=0), mask=present)
        tl.store(target + 8, tl.sum(weight * grad_blue, axis=0), mask=present)
        tl.store(target + 9, tl.sum(weight * grad_depth, axis=0), mask=present)
        at -= BLOCK


@triton.jit
def add_pairs(gradients, offsets, grad_table):
    """Adds up the gradients of one splat's pairs, in an order that is always the same.

    Args:
        gradients: From `blend_backward`.
        offsets: The pairs of splat i are the rows offsets[i] to offsets[i + 1] of `gradients`.
        grad_table: Written: gradient of the table [splats, COLUMNS].
    """
    splat = tl.program_id(0).to(tl.int64)
    start, end = tl.load(offsets + splat), tl.load(offsets + splat + 1)
    column = tl.arange(0, PADDED_COLUMNS)
    total = tl.zeros([PAIRS, PADDED_COLUMNS], tl.float32)
    while start < end:
        pair = start + tl.arange(0, PAIRS)
        wanted = (pair < end)[:, None] & (column < COLUMNS)[None, :]
        total += tl.load(gradients + pair[:, None] * COLUMNS + column[None, :], mask=wanted, other=0.0)
        start += PAIRS
    tl.store(grad_table + splat * COLUMNS + column, tl.sum(total, axis=0), mask=column < COLUMNS)
