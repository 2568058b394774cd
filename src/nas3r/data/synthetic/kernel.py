"""The fast CPU renderer: one compiled pass over tiles of pixels, same formulas as the torch renderer.

For each view the solids' cubes are projected to rectangles and sorted by their nearest depth; a tile looks
only at the solids whose rectangle it touches, nearest first, and stops when the next one begins behind what
it has hit. Geometry is sampled n x n times a pixel, colour once per surface seen in the pixel.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numba import njit
from torch import Tensor

from nas3r.data.synthetic import ops, photos, shading, shapes, textures
from nas3r.data.synthetic import tables as tb
from nas3r.data.synthetic.ops import clamp01, mix
from nas3r.data.synthetic.photos import photo_color
from nas3r.data.synthetic.worlds import COS, GLOSS, GRIME, GRIME_SCALE, OCCLUSION, SIN, P, Q

_TILE = 8

_compiled: Any = njit(fastmath=True, nogil=True, error_model="numpy")


@_compiled
def _hit(solids, k, x, y):
    """Depth of the nearest hit of the camera ray (x, y, 1) with a solid."""
    kind = solids[k, tb.KIND]
    ox, oy, oz = solids[k, 0], solids[k, 1], solids[k, 2]
    dx = solids[k, 3] * x + solids[k, 4] * y + solids[k, 5]
    dy = solids[k, 6] * x + solids[k, 7] * y + solids[k, 8]
    dz = solids[k, 9] * x + solids[k, 10] * y + solids[k, 11]
    if kind == shapes.BOX:
        return shapes.hit_box(ox, oy, oz, dx, dy, dz)
    if kind == shapes.ROOM:
        return shapes.hit_room(ox, oy, oz, dx, dy, dz)
    if kind == shapes.ELLIPSOID:
        return shapes.hit_ellipsoid(ox, oy, oz, dx, dy, dz)
    if kind == shapes.CYLINDER:
        return shapes.hit_cylinder(ox, oy, oz, dx, dy, dz)
    if kind == shapes.PRISM:
        return shapes.hit_prism(ox, oy, oz, dx, dy, dz)
    rough = kind == shapes.ROUGH
    return shapes.hit_implicit(
        ox, oy, oz, dx, dy, dz, rough,
        solids[k, tb.FORM], solids[k, tb.FORM + 1], solids[k, tb.FORM + 2], solids[k, tb.FORM + 3],
    )  # fmt: skip


@_compiled
def _gradient(solids, k, x, y, z):
    """Outward direction in the unit frame (inward for rooms), any length."""
    kind = solids[k, tb.KIND]
    if kind == shapes.BOX:
        return shapes.normal_box(x, y, z)
    if kind == shapes.ROOM:
        nx, ny, nz = shapes.normal_box(x, y, z)
        return -nx, -ny, -nz
    if kind == shapes.ELLIPSOID:
        return x, y, z
    if kind == shapes.CYLINDER:
        return shapes.normal_cylinder(x, y, z)
    if kind == shapes.PRISM:
        return shapes.normal_prism(x, y, z)
    if kind == shapes.ROUGH:
        return shapes.normal_rough(
            x,
            y,
            z,
            solids[k, tb.FORM],
            solids[k, tb.FORM + 1],
            solids[k, tb.FORM + 2],
            solids[k, tb.FORM + 3],
        )
    return shapes.normal_torus(x, y, z, solids[k, tb.FORM])


@_compiled
def _texture(kind, u, v, fu, fv, seed, p, q):
    if kind == textures.NOISE:
        return textures.noise(u, v, fu, fv, seed, p, q)
    if kind == textures.CHECKER:
        return textures.checker(u, v, fu, fv, seed, p, q)
    if kind == textures.STRIPES:
        return textures.stripes(u, v, fu, fv, seed, p, q)
    if kind == textures.BRICKS:
        return textures.bricks(u, v, fu, fv, seed, p, q)
    if kind == textures.WOOD:
        return textures.wood(u, v, fu, fv, seed, p, q)
    if kind == textures.MARBLE:
        return textures.marble(u, v, fu, fv, seed, p, q)
    if kind == textures.LEAVES:
        return textures.leaves(u, v, fu, fv, seed, p, q)
    if kind == textures.SPOTS:
        return textures.spots(u, v, fu, fv, seed, p, q)
    if kind == textures.GLYPHS:
        return textures.glyphs(u, v, fu, fv, seed, p, q)
    if kind == textures.POSTERS:
        return textures.posters(u, v, fu, fv, seed, p, q)
    if kind == textures.BARS:
        return textures.bars(u, v, fu, fv, seed, p, q)
    if kind == textures.FACADE:
        return textures.facade(u, v, fu, fv, seed, p, q)
    if kind == textures.MOSAIC:
        return textures.mosaic(u, v, fu, fv, seed, p, q)
    return textures.picture(u, v, fu, fv, seed, p, q)


@_compiled
def _face(solids, k, x, y, t):
    """Which side of a flat solid a sample hit (0..5); 7 for the others, whose samples are averaged."""
    kind = solids[k, tb.KIND]
    if kind != shapes.BOX and kind != shapes.ROOM:
        return 7
    px, py, pz = _local_point(solids, k, t * x, t * y, t)
    ax, ay, az = abs(px), abs(py), abs(pz)
    if ax >= ay and ax >= az:
        return 0 if px < 0 else 1
    if ay >= az:
        return 2 if py < 0 else 3
    return 4 if pz < 0 else 5


@_compiled
def _local_point(solids, k, x, y, z):
    """A point of the camera frame in a solid's unit frame."""
    return (
        solids[k, 0] + solids[k, 3] * x + solids[k, 4] * y + solids[k, 5] * z,
        solids[k, 1] + solids[k, 6] * x + solids[k, 7] * y + solids[k, 8] * z,
        solids[k, 2] + solids[k, 9] * x + solids[k, 10] * y + solids[k, 11] * z,
    )


@_compiled
def _turned(solids, k, x, y, z):
    """A direction of a solid's frame in the world."""
    return (
        solids[k, tb.ROTATION] * x + solids[k, tb.ROTATION + 1] * y + solids[k, tb.ROTATION + 2] * z,
        solids[k, tb.ROTATION + 3] * x + solids[k, tb.ROTATION + 4] * y + solids[k, tb.ROTATION + 5] * z,
        solids[k, tb.ROTATION + 6] * x + solids[k, tb.ROTATION + 7] * y + solids[k, tb.ROTATION + 8] * z,
    )


@_compiled
def _sorted_by_depth(solids, order):
    """Fills `order` with the visible solids, nearest first; returns their number."""
    count = 0
    for j in range(len(solids)):
        if solids[j, tb.KIND] == shapes.UNUSED or solids[j, tb.LEFT] > solids[j, tb.RIGHT]:
            continue
        k = count
        while k > 0 and solids[order[k - 1], tb.NEAR] > solids[j, tb.NEAR]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = j
        count += 1
    return count


@_compiled
def _tile_list(view, row, column, height, width, solids, order, count, listed):
    """Fills `listed` with the solids whose rectangle touches a tile; returns their number."""
    x0, x1 = (column - view[tb.CX]) / view[tb.FX], (min(column + _TILE, width) - view[tb.CX]) / view[tb.FX]
    y0, y1 = (row - view[tb.CY]) / view[tb.FY], (min(row + _TILE, height) - view[tb.CY]) / view[tb.FY]
    far = max(x0 * x0, x1 * x1) + max(y0 * y0, y1 * y1)
    low, high = min(1.0, 1.0 + view[tb.BEND] * far), max(1.0, 1.0 + view[tb.BEND] * far)
    x0, x1 = min(x0 * low, x0 * high), max(x1 * low, x1 * high)
    y0, y1 = min(y0 * low, y0 * high), max(y1 * low, y1 * high)
    n = 0
    for k in range(count):
        j = order[k]
        across = solids[j, tb.RIGHT] >= x0 and solids[j, tb.LEFT] <= x1
        if across and solids[j, tb.BOTTOM] >= y0 and solids[j, tb.TOP] <= y1:
            listed[n] = j
            n += 1
    return n


@_compiled
def _cast(solids, x, y, listed, count):
    """Nearest solid along the camera ray (x, y, 1): (index or -1, depth)."""
    best, found = shapes.NO_HIT, -1
    for n in range(count):
        j = listed[n]
        if solids[j, tb.NEAR] > best:
            break
        if (
            x < solids[j, tb.LEFT]
            or x > solids[j, tb.RIGHT]
            or y < solids[j, tb.TOP]
            or y > solids[j, tb.BOTTOM]
        ):
            continue
        t = _hit(solids, j, x, y)
        if t < best:
            best, found = t, j
    return found, best


@_compiled
def _ray(view, column, row):
    """Camera ray (x, y, 1) through pixel coordinates."""
    x, y = (column - view[tb.CX]) / view[tb.FX], (row - view[tb.CY]) / view[tb.FY]
    scale = 1.0 + view[tb.BEND] * (x * x + y * y)
    return x * scale, y * scale


@_compiled
def _reached(view, solids, k, px, py, pz, nx, ny, nz):
    """Light that reaches a point of solid `k` past the solids around it and the walls of the room."""
    strength, room = view[tb.LIGHT + OCCLUSION], int(view[tb.ROOM_INDEX])
    hidden = 0.0
    for j in range(len(solids)):
        if solids[j, tb.KIND] == shapes.UNUSED or j in (k, room):
            continue
        x, y, z = solids[j, tb.CENTER] - px, solids[j, tb.CENTER + 1] - py, solids[j, tb.CENTER + 2] - pz
        radius = solids[j, tb.RADIUS]
        if x * x + y * y + z * z < shading.OCCLUSION_REACH * radius * radius:
            hidden += shading.occlusion(x, y, z, nx, ny, nz, radius)
    light = 1.0 - strength * min(0.7 * hidden, 0.75)
    if room < 0:
        return light
    hx, hy, hz = solids[room, tb.HALF], solids[room, tb.HALF + 1], solids[room, tb.HALF + 2]
    reach = 0.3 * min(hx, min(hy, hz))
    x, y, z = px - solids[room, tb.CENTER], py - solids[room, tb.CENTER + 1], pz - solids[room, tb.CENTER + 2]
    corner = shading.wall_occlusion(hx - abs(x), abs(nx), reach)
    corner *= shading.wall_occlusion(hy - abs(y), abs(ny), reach)
    corner *= shading.wall_occlusion(hz - abs(z), abs(nz), reach)
    return light * mix(1.0, corner, strength)


@_compiled
def _albedo(materials, m, k, face, u0, v0, eu, ev, atlas):
    """Colour of one side of a surface at (u0, v0), where a pixel spans (eu, ev)."""
    scale, cos, sin = materials[m, tb.SURFACE], materials[m, tb.SURFACE + COS], materials[m, tb.SURFACE + SIN]
    u, v = (cos * u0 + sin * v0) / scale, (cos * v0 - sin * u0) / scale
    fu, fv = (abs(cos) * eu + abs(sin) * ev) / scale, (abs(cos) * ev + abs(sin) * eu) / scale
    seed = shading.side_seed(int(materials[m, tb.TEXTURE_SEED]), k, face)
    patch = materials[m, tb.SURFACE + GRIME_SCALE]
    grime = shading.grime(u0 / patch, v0 / patch, seed, materials[m, tb.SURFACE + GRIME])
    texture = materials[m, tb.TEXTURE]
    if texture == textures.PHOTO:
        r, g, b = photo_color(atlas, u, v, max(fu, fv), seed)
        return clamp01(r * grime), clamp01(g * grime), clamp01(b * grime)
    p, q = materials[m, tb.SURFACE + P], materials[m, tb.SURFACE + Q]
    a, b, shade, pick, colourful = _texture(texture, u, v, fu, fv, seed, p, q)
    r, g, b_random = shading.random_color(pick)
    c = tb.COLORS
    return (
        shading.blended(
            a, b, shade, colourful, materials[m, c], materials[m, c + 3], materials[m, c + 6], r, grime
        ),
        shading.blended(
            a, b, shade, colourful, materials[m, c + 1], materials[m, c + 4], materials[m, c + 7], g, grime
        ),
        shading.blended(
            a,
            b,
            shade,
            colourful,
            materials[m, c + 2],
            materials[m, c + 5],
            materials[m, c + 8],
            b_random,
            grime,
        ),
    )


@_compiled
def _shade(view, solids, materials, atlas, k, cx, cy, cz):
    """Linear colour of solid `k` at the point (cx, cy, cz) of the camera frame."""
    hx, hy, hz = solids[k, tb.HALF], solids[k, tb.HALF + 1], solids[k, tb.HALF + 2]
    x, y, z = _local_point(solids, k, cx, cy, cz)
    gx, gy, gz = _gradient(solids, k, x, y, z)
    nx, ny, nz = shading.unit(gx / hx, gy / hy, gz / hz)
    x, y, z = x * hx, y * hy, z * hz

    axis = shading.dominant_axis(nx, ny, nz)
    facing = nx if axis == 0.0 else (ny if axis == 1.0 else nz)
    face = 2 * int(axis) + (1 if facing > 0 else 0)
    m = int(solids[k, tb.MATERIAL + face])
    # From the camera to the point, and from pixel to pixel at its depth, in the solid's frame.
    right, down = cz / view[tb.FX], cz / view[tb.FY]
    dx, sx, tx = x - solids[k, 0] * hx, solids[k, 3] * hx * right, solids[k, 4] * hx * down
    dy, sy, ty = y - solids[k, 1] * hy, solids[k, 6] * hy * right, solids[k, 7] * hy * down
    dz, sz, tz = z - solids[k, 2] * hz, solids[k, 9] * hz * right, solids[k, 10] * hz * down
    ax, ay, az = shading.pixel_extent(dx, dy, dz, sx, sy, sz, nx, ny, nz)
    bx, by, bz = shading.pixel_extent(dx, dy, dz, tx, ty, tz, nx, ny, nz)
    u, v = shading.pick_plane(axis, x, y, z)
    eu, ev = shading.pick_plane(axis, ax + bx, ay + by, az + bz)
    red, green, blue = _albedo(materials, m, k, face, u, v, eu, ev, atlas)

    wx, wy, wz = _turned(solids, k, nx, ny, nz)
    px, py, pz = _turned(solids, k, x, y, z)
    px, py, pz = px + solids[k, tb.CENTER], py + solids[k, tb.CENTER + 1], pz + solids[k, tb.CENTER + 2]
    vx, vy, vz = shading.unit(view[tb.POSE + 3] - px, view[tb.POSE + 7] - py, view[tb.POSE + 11] - pz)
    n = tb.LIGHT
    ambient, lambert, shine = shading.illumination(
        wx, wy, wz, px, py, pz, vx, vy, vz, view[n + 3], view[n + 4], view[n + 5], view[n + 6], view[n + 10],
        materials[m, tb.SURFACE + GLOSS],
    )  # fmt: skip
    reached = _reached(view, solids, k, px, py, pz, wx, wy, wz)
    return (
        shading.lit(red, view[n], view[n + 7], ambient, lambert, shine, reached),
        shading.lit(green, view[n + 1], view[n + 8], ambient, lambert, shine, reached),
        shading.lit(blue, view[n + 2], view[n + 9], ambient, lambert, shine, reached),
    )


@_compiled
def _sky(view, x, y):
    """Colour of the sky along a camera ray."""
    p, n = tb.POSE, tb.LIGHT
    up, cloud = shading.sky_weights(
        view[p] * x + view[p + 1] * y + view[p + 2],
        view[p + 4] * x + view[p + 5] * y + view[p + 6],
        view[p + 8] * x + view[p + 9] * y + view[p + 10],
        int(view[tb.SKY_SEED]),
    )
    return (
        shading.sky(view[n + 11], view[n + 14], up, cloud),
        shading.sky(view[n + 12], view[n + 15], up, cloud),
        shading.sky(view[n + 13], view[n + 16], up, cloud),
    )


@_compiled
def _samples(view, solids, row, column, samples, listed, count, hits):
    """Casts n x n rays through a pixel; fills (solid or -1, side, x, y, depth) of each."""
    for i in range(samples * samples):
        x, y = _ray(view, column + (i % samples + 0.5) / samples, row + (i // samples + 0.5) / samples)
        j, t = _cast(solids, x, y, listed, count)
        hits[i, 0], hits[i, 2], hits[i, 3], hits[i, 4] = j, x, y, t
        hits[i, 1] = _face(solids, j, x, y, t) if j >= 0 else 7


@_compiled
def _gather(first, hits):
    """(count, mean x, mean y, mean depth in the camera frame) of the samples on the surface of sample
    `first`.

    Marks the samples as used (-2).
    """
    j, face = hits[first, 0], hits[first, 1]
    n, x, y, z = 0, 0.0, 0.0, 0.0
    for i in range(first, len(hits)):
        if hits[i, 0] == j and hits[i, 1] == face:
            n += 1
            x += hits[i, 4] * hits[i, 2]
            y += hits[i, 4] * hits[i, 3]
            z += hits[i, 4]
            hits[i, 0] = -2
    return n, x / n, y / n, z / n


@_compiled
def _pixel(view, solids, materials, atlas, row, column, samples, listed, count, hits):
    """Linear colour of a pixel."""
    _samples(view, solids, row, column, samples, listed, count, hits)
    red, green, blue = 0.0, 0.0, 0.0
    for i in range(samples * samples):
        k = int(hits[i, 0])
        if k == -2:
            continue
        n, x, y, z = _gather(i, hits)
        if k < 0:
            r, g, b = _sky(view, x / z, y / z)
        else:
            r, g, b = _shade(view, solids, materials, atlas, k, x, y, z)
        red, green, blue = red + n * r, green + n * g, blue + n * b
    return red / (samples * samples), green / (samples * samples), blue / (samples * samples)


@_compiled
def _render_view(view, solids, materials, atlas, samples, image, depth):
    """Renders one view from its tables."""
    height, width = image.shape[1:]
    order, listed = np.empty(len(solids), np.int64), np.empty(len(solids), np.int64)
    hits = np.empty((samples * samples, 5))
    count = _sorted_by_depth(solids, order)
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            n = _tile_list(view, top, left, height, width, solids, order, count, listed)
            for row in range(top, min(top + _TILE, height)):
                for column in range(left, min(left + _TILE, width)):
                    if depth.size:
                        x, y = _ray(view, column + 0.5, row + 0.5)
                        j, t = _cast(solids, x, y, listed, n)
                        depth[row, column] = t if j >= 0 else 0.0
                    if samples:
                        red, green, blue = _pixel(
                            view, solids, materials, atlas, row, column, samples, listed, n, hits
                        )
                        image[0, row, column] = shading.tone(red, view[tb.GAIN])
                        image[1, row, column] = shading.tone(green, view[tb.GAIN])
                        image[2, row, column] = shading.tone(blue, view[tb.GAIN])


def _digest() -> int:
    """A number that changes with the source of the formulas."""
    modules = (ops, shapes, textures, shading, photos, tb)
    source = b"".join(Path(str(module.__file__)).read_bytes() for module in modules)
    return int.from_bytes(hashlib.sha256(source).digest()[:7], "big")


def _build(formulas: int) -> Callable[..., None]:
    """The kernel's entry, the one function whose machine code is kept on disk.

    Numba recognises what it kept by this file's content and by the values the function closes over; the
    digest is closed over so that a change of the formulas in other files is noticed as well.
    """

    @njit(cache=True, nogil=True)
    def kernel(world, views, solids, materials, atlas, samples, image, depth):
        assert formulas >= 0
        for i in range(len(world)):
            _render_view(views[i], solids[i], materials[world[i]], atlas, samples, image[i], depth[i])

    return kernel


_kernel = _build(_digest())


def render_kernel(
    tables: tb.Tables,
    atlas: Tensor,
    samples: int,
    image: Float[Tensor, "n 3 h w"],
    depth: Float[Tensor, "n h w"],
) -> None:
    """Renders the views of `tables` into `image` and `depth` (or not, where that is [n, 0, 0]).

    `samples` is n of the n x n geometry samples a pixel; with 0 only depth is computed.
    """
    # Computed in double: numbers in the kernel's source are, and scalars gain nothing from less.
    tensors = (t.double() if t.is_floating_point() else t for t in (*tables, atlas))
    arrays = [t.detach().contiguous().numpy() for t in tensors]
    _kernel(*arrays, samples, image.numpy(), depth.numpy())
