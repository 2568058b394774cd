"""The fast CPU renderer: one compiled pass over tiles of pixels, same formulas as the torch renderer.

For each view the solids' cubes are projected to rectangles and sorted by their nearest depth; a tile looks only at
the solids whose rectangle it touches, nearest first, and stops when the next one begins behind what it has hit.
Geometry is sampled n x n times a pixel, colour once per surface seen in the pixel.
"""

import math

import numpy as np
from numba import njit

from nas3r.data.synthetic import shading, shapes, textures
from nas3r.data.synthetic.ops import clamp01, mix
from nas3r.data.synthetic.photos import photo_color

_TILE = 8

_compiled = njit(cache=True, fastmath=True, nogil=True, error_model="numpy")


@_compiled
def _hit(kind, form, j, ox, oy, oz, dx, dy, dz):
    """Ray parameter of the nearest hit with solid `j` in its unit frame."""
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
    entry, leave = shapes.cube_interval(ox, oy, oz, dx, dy, dz)
    if entry >= leave or leave <= 0.0:
        return shapes.NO_HIT
    if kind == shapes.ROUGH:
        return shapes.hit_rough(ox, oy, oz, dx, dy, dz, form[j, 0], form[j, 1], form[j, 2], form[j, 3])
    return shapes.hit_torus(ox, oy, oz, dx, dy, dz, form[j, 0])


@_compiled
def _gradient(kind, form, x, y, z):
    """Outward direction in the unit frame (inward for rooms), any length."""
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
        return shapes.normal_rough(x, y, z, form[0], form[1], form[2], form[3])
    return shapes.normal_torus(x, y, z, form[0])


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
def _face(kind, x, y, z):
    """Which side of a flat solid a point lies on (0..5); 7 for the others, whose samples are averaged."""
    if kind != shapes.BOX and kind != shapes.ROOM:
        return 7
    ax, ay, az = abs(x), abs(y), abs(z)
    if ax >= ay and ax >= az:
        return 0 if x < 0 else 1
    if ay >= az:
        return 2 if y < 0 else 3
    return 4 if z < 0 else 5


@_compiled
def _place(world, view, kind, center, half, rotation, velocity, pose, time, origin, matrix, box):
    """Camera and rays in each solid's unit frame, and the solid's rectangle and nearest depth in the view."""
    count = 0
    local = np.empty((3, 3))
    for j in range(kind.shape[1]):
        if kind[world, j] == shapes.UNUSED:
            continue
        toward = np.empty(3)
        for a in range(3):
            moved = center[world, j, a] + velocity[world, j, a] * time[view]
            toward[a] = moved - pose[view, a, 3]
        for a in range(3):
            s = 0.0
            for c in range(3):
                s += rotation[world, j, c, a] * toward[c]
                m = 0.0
                for e in range(3):
                    m += rotation[world, j, e, a] * pose[view, e, c]
                local[a, c] = m
                matrix[j, a, c] = m / half[world, j, a]
            origin[j, a] = -s / half[world, j, a]
        _bound(kind[world, j], half[world, j], origin[j], local, box[j])
        if box[j, 0] <= box[j, 1]:
            count += 1
    return count


@_compiled
def _bound(kind, half, origin, local, box):
    """(x min, x max, y min, y max, nearest z) of a solid's cube on the image plane z = 1."""
    whole = kind == shapes.ROOM
    box[0], box[1], box[2], box[3], box[4] = 1e9, -1e9, 1e9, -1e9, 1e9
    behind = 0
    for corner in range(8):
        x, y, z = 0.0, 0.0, 0.0
        for a in range(3):
            s = (2.0 * ((corner >> a) & 1) - 1.0 - origin[a]) * half[a]
            x += local[a, 0] * s
            y += local[a, 1] * s
            z += local[a, 2] * s
        box[4] = min(box[4], z)
        if z < 1e-3:
            behind += 1
        else:
            box[0], box[1] = min(box[0], x / z), max(box[1], x / z)
            box[2], box[3] = min(box[2], y / z), max(box[3], y / z)
    if behind == 8:
        box[0], box[1] = 1e9, -1e9
    elif behind or whole:
        box[0], box[1], box[2], box[3], box[4] = -1e9, 1e9, -1e9, 1e9, 0.0
        if whole:
            box[4] = 1e8  # a room is met only where nothing in it was


@_compiled
def _sorted_by_depth(world, kind, box, order):
    """Fills `order` with the visible solids, nearest first; returns their number."""
    count = 0
    for j in range(kind.shape[1]):
        if kind[world, j] == shapes.UNUSED or box[j, 0] > box[j, 1]:
            continue
        k = count
        while k > 0 and box[order[k - 1], 4] > box[j, 4]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = j
        count += 1
    return count


@_compiled
def _tile_list(lens, distortion, row, column, size, box, order, count, listed):
    """Fills `listed` with the solids whose rectangle touches a tile; returns their number."""
    x0, x1 = (column - lens[2]) / lens[0], (min(column + _TILE, size[1]) - lens[2]) / lens[0]
    y0, y1 = (row - lens[3]) / lens[1], (min(row + _TILE, size[0]) - lens[3]) / lens[1]
    far = max(x0 * x0, x1 * x1) + max(y0 * y0, y1 * y1)
    low, high = min(1.0, 1.0 + distortion * far), max(1.0, 1.0 + distortion * far)
    x0, x1 = min(x0 * low, x0 * high), max(x1 * low, x1 * high)
    y0, y1 = min(y0 * low, y0 * high), max(y1 * low, y1 * high)
    n = 0
    for k in range(count):
        j = order[k]
        if box[j, 1] >= x0 and box[j, 0] <= x1 and box[j, 3] >= y0 and box[j, 2] <= y1:
            listed[n] = j
            n += 1
    return n


@_compiled
def _cast(kinds, forms, x, y, origin, matrix, box, listed, count):
    """Nearest solid along the camera ray (x, y, 1): (index or -1, depth)."""
    best, found = shapes.NO_HIT, -1
    for k in range(count):
        j = listed[k]
        if box[j, 4] > best:
            break
        if x < box[j, 0] or x > box[j, 1] or y < box[j, 2] or y > box[j, 3]:
            continue
        t = _hit(
            kinds[j],
            forms,
            j,
            origin[j, 0],
            origin[j, 1],
            origin[j, 2],
            matrix[j, 0, 0] * x + matrix[j, 0, 1] * y + matrix[j, 0, 2],
            matrix[j, 1, 0] * x + matrix[j, 1, 1] * y + matrix[j, 1, 2],
            matrix[j, 2, 0] * x + matrix[j, 2, 1] * y + matrix[j, 2, 2],
        )
        if t < best:
            best, found = t, j
    return found, best


@_compiled
def _ray(lens, distortion, x, y, ray):
    """Ray through pixel coordinates (x, y)."""
    ray[0], ray[1] = (x - lens[2]) / lens[0], (y - lens[3]) / lens[1]
    scale = 1.0 + distortion * (ray[0] * ray[0] + ray[1] * ray[1])
    ray[0] *= scale
    ray[1] *= scale


@_compiled
def _occluded(world, j, point, normal, kind, center, half, velocity, time, room, strength):
    """Light that reaches a point past the solids around it and the walls of the room."""
    hidden = 0.0
    for k in range(kind.shape[1]):
        code = kind[world, k]
        if k == j or code == shapes.UNUSED or code == shapes.ROOM:
            continue
        hx, hy, hz = half[world, k, 0], half[world, k, 1], half[world, k, 2]
        radius = max(min(hx, hy), min(max(hx, hy), hz))  # the middle one
        hidden += shading.occlusion(
            center[world, k, 0] + velocity[world, k, 0] * time - point[0],
            center[world, k, 1] + velocity[world, k, 1] * time - point[1],
            center[world, k, 2] + velocity[world, k, 2] * time - point[2],
            normal[0],
            normal[1],
            normal[2],
            radius,
        )
    light = 1.0 - strength * min(0.7 * hidden, 0.75)
    if room >= 0:
        reach = 0.25 * min(half[world, room, 0], min(half[world, room, 1], half[world, room, 2]))
        for a in range(3):
            gap = max(half[world, room, a] - abs(point[a] - center[world, room, a]), 0.0)
            light *= mix(1.0, shading.wall_occlusion(gap, abs(normal[a]), reach), strength)
    return light


@_compiled
def _shade(
    world, j, ray, t, x, y, z, step, eye, time, room, matrix, kind, center, half, rotation, velocity, form,
    material, texture, texture_seed, palette, surface, light, atlas, color,
):  # fmt: skip
    """Linear colour of solid `j` at the point (x, y, z) of its unit frame."""
    gx, gy, gz = _gradient(kind[world, j], form[world, j], x, y, z)
    hx, hy, hz = half[world, j, 0], half[world, j, 1], half[world, j, 2]
    gx, gy, gz = gx / hx, gy / hy, gz / hz
    length = math.sqrt(max(gx * gx + gy * gy + gz * gz, 1e-20))
    nx, ny, nz = gx / length, gy / length, gz / length

    axis = shading.dominant_axis(nx, ny, nz)
    facing = nx if axis == 0.0 else (ny if axis == 1.0 else nz)
    face = 2 * int(axis) + (1 if facing > 0 else 0)
    m = material[world, j, face]
    d = np.empty(3)
    s = np.empty(3)
    for a in range(3):
        d[a] = (matrix[j, a, 0] * ray[0] + matrix[j, a, 1] * ray[1] + matrix[j, a, 2]) * half[world, j, a]
        s[a] = matrix[j, a, 0] * half[world, j, a]
    ax, ay, az = shading.pixel_extent(
        t, d[0], d[1], d[2], s[0] * step[0], s[1] * step[0], s[2] * step[0], nx, ny, nz
    )
    for a in range(3):
        s[a] = matrix[j, a, 1] * half[world, j, a]
    bx, by, bz = shading.pixel_extent(
        t, d[0], d[1], d[2], s[0] * step[1], s[1] * step[1], s[2] * step[1], nx, ny, nz
    )
    u0, v0 = shading.pick_plane(axis, x * hx, y * hy, z * hz)
    eu, ev = shading.pick_plane(axis, ax + bx, ay + by, az + bz)

    scale, cos, sin = surface[world, m, 0], surface[world, m, 1], surface[world, m, 2]
    u, v = (cos * u0 + sin * v0) / scale, (cos * v0 - sin * u0) / scale
    fu, fv = (abs(cos) * eu + abs(sin) * ev) / scale, (abs(cos) * ev + abs(sin) * eu) / scale
    seed = texture_seed[world, m] + 613 * face + 7907 * j
    p, q = surface[world, m, 3], surface[world, m, 4]
    c0, c1, c2 = palette[world, m, 0], palette[world, m, 1], palette[world, m, 2]
    variation = shading.value_noise(
        u0 / surface[world, m, 6] + 0.5, v0 / surface[world, m, 6] + 0.5, seed + 77
    )
    grime = 1.0 + surface[world, m, 5] * (2.0 * variation - 1.0)
    if texture[world, m] == textures.PHOTO:
        r, g, b = photo_color(atlas, u, v, max(fu, fv), seed)
        red, green, blue = clamp01(r * grime), clamp01(g * grime), clamp01(b * grime)
    else:
        wa, wb, shade, pick, colourful = _texture(texture[world, m], u, v, fu, fv, seed, p, q)
        r, g, b = shading.random_color(pick)
        red = shading.blended(wa, wb, shade, colourful, c0[0], c1[0], c2[0], r, grime)
        green = shading.blended(wa, wb, shade, colourful, c0[1], c1[1], c2[1], g, grime)
        blue = shading.blended(wa, wb, shade, colourful, c0[2], c1[2], c2[2], b, grime)

    normal = np.empty(3)
    point = np.empty(3)
    view = np.empty(3)
    for a in range(3):
        normal[a] = (
            rotation[world, j, a, 0] * nx + rotation[world, j, a, 1] * ny + rotation[world, j, a, 2] * nz
        )
        offset = rotation[world, j, a, 0] * x * hx
        offset += rotation[world, j, a, 1] * y * hy + rotation[world, j, a, 2] * z * hz
        point[a] = center[world, j, a] + velocity[world, j, a] * time + offset
        view[a] = eye[a] - point[a]
    length = math.sqrt(max(view[0] * view[0] + view[1] * view[1] + view[2] * view[2], 1e-20))
    row = light[world]
    ambient, lambert, shine = shading.illumination(
        normal[0], normal[1], normal[2], point[0], point[1], point[2], view[0] / length, view[1] / length,
        view[2] / length, row[3], row[4], row[5], row[6], row[10], surface[world, m, 7],
    )  # fmt: skip
    reached = _occluded(world, j, point, normal, kind, center, half, velocity, time, room, row[17])
    lamp = lambert * (0.4 + 0.6 * reached)
    color[0] = red * (row[0] * ambient * reached + row[7] * lamp) + row[7] * shine
    color[1] = green * (row[1] * ambient * reached + row[8] * lamp) + row[8] * shine
    color[2] = blue * (row[2] * ambient * reached + row[9] * lamp) + row[9] * shine


@_compiled
def _sky(world, ray, pose, light, seed, color):
    """Colour of the sky along a camera ray."""
    x = pose[0, 0] * ray[0] + pose[0, 1] * ray[1] + pose[0, 2]
    y = pose[1, 0] * ray[0] + pose[1, 1] * ray[1] + pose[1, 2]
    z = pose[2, 0] * ray[0] + pose[2, 1] * ray[1] + pose[2, 2]
    up, cloud = shading.sky_weights(x, y, z, seed)
    for a in range(3):
        color[a] = mix(mix(light[world, 11 + a], light[world, 14 + a], up), 0.9, 0.8 * cloud)


@_compiled
def render_kernel(
    world_of, pose, lens, time, gain, samples, world_seed, kind, center, half, rotation, velocity, form,
    material, texture, texture_seed, palette, surface, light, distortion, atlas, image, depth,
):  # fmt: skip
    """Renders views `[n]` of worlds into `image` [n, 3, h, w] and, unless it is empty, `depth` [n, h, w].

    `lens` holds (fx, fy, cx, cy) in pixels, `samples` is n of the n x n geometry samples a pixel. Other arguments
    are the fields of `Worlds`. With `samples` = 0 only depth is computed.
    """
    n_solids = kind.shape[1]
    size = image.shape[2:]
    origin, matrix = np.empty((n_solids, 3)), np.empty((n_solids, 3, 3))
    box = np.empty((n_solids, 5))
    order, listed = np.empty(n_solids, np.int64), np.empty(n_solids, np.int64)
    n_samples = samples * samples
    ids, faces, ts = np.empty(n_samples, np.int64), np.empty(n_samples, np.int64), np.empty(n_samples)
    points, rays = np.empty((n_samples, 3)), np.empty((n_samples, 2))
    ray, color, total, mean, mean_ray = np.empty(2), np.empty(3), np.empty(3), np.empty(3), np.empty(2)
    step = np.empty(2)
    for view in range(pose.shape[0]):
        world = world_of[view]
        bend = distortion[world]
        step[0], step[1] = 1.0 / lens[view, 0], 1.0 / lens[view, 1]
        _place(world, view, kind, center, half, rotation, velocity, pose, time, origin, matrix, box)
        count = _sorted_by_depth(world, kind, box, order)
        room = -1
        for j in range(n_solids):
            if kind[world, j] == shapes.ROOM:
                room = j
        kinds, forms = kind[world], form[world]
        for tile_row in range(0, size[0], _TILE):
            for tile_column in range(0, size[1], _TILE):
                n_listed = _tile_list(
                    lens[view], bend, tile_row, tile_column, size, box, order, count, listed
                )
                for row in range(tile_row, min(tile_row + _TILE, size[0])):
                    for column in range(tile_column, min(tile_column + _TILE, size[1])):
                        if n_samples:
                            for i in range(n_samples):
                                dx = (i % samples + 0.5) / samples
                                dy = (i // samples + 0.5) / samples
                                _ray(lens[view], bend, column + dx, row + dy, rays[i])
                                j, t = _cast(
                                    kinds,
                                    forms,
                                    rays[i, 0],
                                    rays[i, 1],
                                    origin,
                                    matrix,
                                    box,
                                    listed,
                                    n_listed,
                                )
                                ids[i], ts[i], faces[i] = j, t, 0
                                if j >= 0:
                                    for a in range(3):
                                        slope = matrix[j, a, 0] * rays[i, 0] + matrix[j, a, 1] * rays[i, 1]
                                        points[i, a] = origin[j, a] + t * (slope + matrix[j, a, 2])
                                    faces[i] = _face(kinds[j], points[i, 0], points[i, 1], points[i, 2])
                            total[:] = 0.0
                            for i in range(n_samples):
                                j = ids[i]
                                if j == -2:
                                    continue
                                shared, mean_t = 0.0, 0.0
                                mean[:] = 0.0
                                mean_ray[:] = 0.0
                                for k in range(i, n_samples):
                                    if ids[k] != j or faces[k] != faces[i]:
                                        continue
                                    shared += 1.0
                                    mean_ray += rays[k]
                                    if j >= 0:
                                        mean_t += ts[k]
                                        mean += points[k]
                                    if k > i:
                                        ids[k] = -2
                                mean_ray /= shared
                                if j < 0:
                                    _sky(
                                        world, mean_ray, pose[view], light, world_seed[world] & 0xFFFFF, color
                                    )
                                else:
                                    mean /= shared
                                    _shade(
                                        world, j, mean_ray, mean_t / shared, mean[0], mean[1], mean[2], step,
                                        pose[view, :3, 3], time[view], room, matrix, kind, center, half,
                                        rotation, velocity, form, material, texture, texture_seed, palette,
                                        surface, light, atlas, color,
                                    )  # fmt: skip
                                for a in range(3):
                                    total[a] += color[a] * shared
                            for a in range(3):
                                image[view, a, row, column] = shading.tone(total[a] / n_samples, gain[view])
                        if depth.size:
                            _ray(lens[view], bend, column + 0.5, row + 0.5, ray)
                            j, t = _cast(kinds, forms, ray[0], ray[1], origin, matrix, box, listed, n_listed)
                            depth[view, row, column] = t if j >= 0 else 0.0
