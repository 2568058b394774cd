"""The torch renderer: any device and dtype; the readable twin of the compiled one.

Rays of all pixels of all views meet one solid after the other; colour is computed once per surface seen in a
pixel, one texture after the other.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nas3r.data.synthetic import shading, shapes, textures
from nas3r.data.synthetic import tables as tb
from nas3r.data.synthetic.ops import clamp01, mix
from nas3r.data.synthetic.photos import photo_color
from nas3r.data.synthetic.worlds import COS, GLOSS, GRIME, GRIME_SCALE, OCCLUSION, SIN, P, Q

# Rays cast at a time: bounds memory at about 0.3 KB a ray.
_RAYS = 1 << 18
_RAYS_CUDA = 1 << 23

_TEXTURES = {
    textures.NOISE: textures.noise,
    textures.CHECKER: textures.checker,
    textures.STRIPES: textures.stripes,
    textures.BRICKS: textures.bricks,
    textures.WOOD: textures.wood,
    textures.MARBLE: textures.marble,
    textures.LEAVES: textures.leaves,
    textures.SPOTS: textures.spots,
    textures.GLYPHS: textures.glyphs,
    textures.POSTERS: textures.posters,
    textures.BARS: textures.bars,
    textures.FACADE: textures.facade,
    textures.MOSAIC: textures.mosaic,
    textures.PICTURE: textures.picture,
}


def render_torch(
    tables: tb.Tables, height: int, width: int, photos: Tensor, samples: int, depth: bool
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n h w"] | None]:
    """Images and depth maps of the views of `tables`; `samples` is n of the n x n rays a pixel."""
    kinds = tables.solids[..., tb.KIND].long().cpu()
    budget = _RAYS_CUDA if tables.solids.is_cuda else _RAYS
    step = max(1, budget // (height * width * samples * samples))
    images, depths = [], []
    for first in range(0, len(tables.world), step):
        rows = slice(first, first + step)
        part = tb.Tables(tables.world[rows], tables.views[rows], tables.solids[rows], tables.materials)
        images.append(_images(part, kinds[rows], height, width, photos, samples))
        if depth:
            x, y = _rays(part.views, height, width, 1)
            solid, t = _cast(part.solids, kinds[rows], x, y)
            depths.append(torch.where(solid < 0, 0.0, t).reshape(-1, height, width))
    return torch.cat(images), torch.cat(depths) if depth else None


def _rays(views: Tensor, height: int, width: int, samples: int) -> tuple[Tensor, Tensor]:
    """Camera rays (x, y, 1), [n, h w samples^2] each, a pixel's samples next to each other."""
    at = (torch.arange(samples, dtype=views.dtype, device=views.device) + 0.5) / samples
    rows, columns = (torch.arange(n, dtype=views.dtype, device=views.device) for n in (height, width))
    row, column, dy, dx = torch.meshgrid(rows, columns, at, at, indexing="ij")
    x = ((column + dx).flatten() - views[:, tb.CX, None]) / views[:, tb.FX, None]
    y = ((row + dy).flatten() - views[:, tb.CY, None]) / views[:, tb.FY, None]
    scale = 1.0 + views[:, tb.BEND, None] * (x * x + y * y)
    return x * scale, y * scale


def _hit(kind: int, solid: Float[Tensor, "m 44"], x: Tensor, y: Tensor) -> Tensor:
    """Depth of the nearest hit of camera rays [m, r] with one solid of each of m views, all of one kind."""
    c = solid[..., None].unbind(1)
    o = c[tb.ORIGIN : tb.ORIGIN + 3]
    d = [c[tb.MATRIX + 3 * a] * x + c[tb.MATRIX + 3 * a + 1] * y + c[tb.MATRIX + 3 * a + 2] for a in range(3)]
    if kind == shapes.BOX:
        return shapes.hit_box(*o, *d)
    if kind == shapes.ROOM:
        return shapes.hit_room(*o, *d)
    if kind == shapes.ELLIPSOID:
        return shapes.hit_ellipsoid(*o, *d)
    if kind == shapes.CYLINDER:
        return shapes.hit_cylinder(*o, *d)
    if kind == shapes.PRISM:
        return shapes.hit_prism(*o, *d)
    return shapes.hit_implicit(*o, *d, kind == shapes.ROUGH, *c[tb.FORM : tb.FORM + 4])


def _cast(
    solids: Float[Tensor, "n p 44"],
    kinds: Int[Tensor, "n p"],
    x: Float[Tensor, "n r"],
    y: Float[Tensor, "n r"],
) -> tuple[Int[Tensor, "n r"], Float[Tensor, "n r"]]:
    """Nearest solid along each ray (-1: none) and its depth. `kinds` lies on the CPU."""
    best = torch.full_like(x, shapes.NO_HIT)
    found = torch.full_like(x, -1, dtype=torch.long)
    for j in range(solids.shape[1]):
        for kind in (*shapes.SOLIDS, shapes.ROOM):
            rows = (kinds[:, j] == kind).nonzero()[:, 0].to(x.device)
            if len(rows) == 0:
                continue
            t = _hit(kind, solids[rows, j], x[rows], y[rows])
            nearer = t < best[rows]
            best[rows] = torch.where(nearer, t, best[rows])
            found[rows] = torch.where(nearer, j, found[rows])
    return found, best


def _local_point(solid: Float[Tensor, "m 44"], x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    """Points of the camera frame in the unit frames of their solids."""
    return [
        solid[..., tb.ORIGIN + a]
        + solid[..., tb.MATRIX + 3 * a] * x
        + solid[..., tb.MATRIX + 3 * a + 1] * y
        + solid[..., tb.MATRIX + 3 * a + 2] * z
        for a in range(3)
    ]


def _faces(solids: Tensor, found: Tensor, x: Tensor, y: Tensor, t: Tensor) -> Int[Tensor, "n r"]:
    """Which side of a flat solid each ray hit (0..5); 7 for the others, whose samples are averaged."""
    solid = solids[torch.arange(len(solids), device=x.device)[:, None], found.clamp_min(0)]
    point = torch.stack(_local_point(solid, t * x, t * y, t), -1)
    axis = point.abs().argmax(-1)
    positive = point.gather(-1, axis[..., None])[..., 0] >= 0
    flat = (solid[..., tb.KIND] == shapes.BOX) | (solid[..., tb.KIND] == shapes.ROOM)
    return torch.where(flat & (found >= 0), 2 * axis + positive, 7)


def _images(
    tables: tb.Tables, kinds: Tensor, height: int, width: int, photos: Tensor, samples: int
) -> Float[Tensor, "n 3 h w"]:
    n, s = len(tables.world), samples * samples
    x, y = _rays(tables.views, height, width, samples)
    found, t = _cast(tables.solids, kinds, x, y)
    faces = _faces(tables.solids, found, x, y, t)

    # Samples of a pixel that lie on one surface: colour is computed at their mean, for the first of them.
    key = (8 * found + faces).reshape(-1, s)
    same = (key[:, :, None] == key[:, None, :]).to(x)
    count = same.sum(-1)
    point = torch.stack([t * x, t * y, t], -1).reshape(-1, s, 3)
    mean = (same @ point) / count[..., None]
    first = torch.tril(same, -1).sum(-1) == 0
    pixel, sample = first.nonzero(as_tuple=True)
    view = pixel // (height * width)
    color = _colors(tables, view, found.reshape(-1, s)[pixel, sample], mean[pixel, sample], photos)

    linear = torch.zeros(*key.shape, 3, dtype=x.dtype, device=x.device)
    linear[pixel, sample] = color * count[pixel, sample, None]
    linear = (linear.sum(1) / s).reshape(n, height, width, 3).permute(0, 3, 1, 2)
    return shading.tone(linear, tables.views[:, tb.GAIN, None, None, None])


def _colors(
    tables: tb.Tables,
    view: Int[Tensor, "m"],
    solid: Int[Tensor, "m"],
    point: Float[Tensor, "m 3"],
    photos: Tensor,
) -> Float[Tensor, "m 3"]:
    """Linear colours of surface points in the camera frames of their views; solid -1 is sky."""
    color = torch.empty_like(point)
    is_sky = solid < 0
    above, below = is_sky.nonzero()[:, 0], (~is_sky).nonzero()[:, 0]
    color[above] = _sky(tables.views[view[above]], point[above])
    color[below] = _shade(tables, view[below], solid[below], point[below], photos)
    return color


def _sky(views: Float[Tensor, "m 38"], point: Float[Tensor, "m 3"]) -> Float[Tensor, "m 3"]:
    rows = views[:, tb.POSE : tb.POSE + 12].reshape(-1, 3, 4)[..., :3]
    x, y, z = (rows * (point / point[:, 2:])[:, None]).sum(-1).unbind(-1)
    up, cloud = shading.sky_weights(x, y, z, views[:, tb.SKY_SEED].long())
    horizon, zenith = views[:, tb.LIGHT + 11 : tb.LIGHT + 14], views[:, tb.LIGHT + 14 : tb.LIGHT + 17]
    return shading.sky(horizon, zenith, up[:, None], cloud[:, None])


def _gradients(solid: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Float[Tensor, "m 3"]:
    """Outward directions in the unit frames (inward for rooms), any length."""
    kind = solid[:, tb.KIND]
    out = torch.stack([x, y, z], -1)  # right for ellipsoids
    form = solid[:, tb.FORM : tb.FORM + 4]
    functions = {
        shapes.BOX: lambda p, f: shapes.normal_box(*p),
        shapes.ROOM: lambda p, f: [-g for g in shapes.normal_box(*p)],
        shapes.CYLINDER: lambda p, f: shapes.normal_cylinder(*p),
        shapes.PRISM: lambda p, f: shapes.normal_prism(*p),
        shapes.ROUGH: lambda p, f: shapes.normal_rough(*p, *f),
        shapes.TORUS: lambda p, f: shapes.normal_torus(*p, f[0]),
    }
    for code, function in functions.items():
        rows = (kind == code).nonzero()[:, 0]
        if len(rows):
            out[rows] = torch.stack(tuple(function((x[rows], y[rows], z[rows]), form[rows].unbind(-1))), -1)
    return out


def _shade(
    tables: tb.Tables,
    view: Int[Tensor, "m"],
    k: Int[Tensor, "m"],
    point: Float[Tensor, "m 3"],
    photos: Tensor,
) -> Float[Tensor, "m 3"]:
    """Linear colours of points on solids `k`."""
    solid, views = tables.solids[view, k], tables.views[view]
    cx, cy, cz = point.unbind(-1)
    hx, hy, hz = solid[:, tb.HALF : tb.HALF + 3].unbind(-1)
    x, y, z = _local_point(solid, cx, cy, cz)
    gx, gy, gz = _gradients(solid, x, y, z).unbind(-1)
    nx, ny, nz = shading.unit(gx / hx, gy / hy, gz / hz)
    x, y, z = x * hx, y * hy, z * hz

    axis = shading.dominant_axis(nx, ny, nz)
    facing = torch.where(axis == 0, nx, torch.where(axis == 1, ny, nz))
    face = 2 * axis.long() + (facing > 0)
    m = solid.gather(1, tb.MATERIAL + face[:, None])[:, 0].long()
    material = tables.materials[tables.world[view], m]
    # From the camera to the point, and from pixel to pixel at its depth, in the solid's frame.
    right, down = cz / views[:, tb.FX], cz / views[:, tb.FY]
    half = (hx, hy, hz)
    to_point = [p - solid[:, tb.ORIGIN + a] * half[a] for a, p in enumerate((x, y, z))]
    across = [solid[:, tb.MATRIX + 3 * a] * half[a] * right for a in range(3)]
    along = [solid[:, tb.MATRIX + 3 * a + 1] * half[a] * down for a in range(3)]
    one = shading.pixel_extent(*to_point, *across, nx, ny, nz)
    two = shading.pixel_extent(*to_point, *along, nx, ny, nz)
    u, v = shading.pick_plane(axis, x, y, z)
    eu, ev = shading.pick_plane(axis, *(a + b for a, b in zip(one, two)))
    albedo = _albedo(material, k, face, u, v, eu, ev, photos)

    rotation = solid[:, tb.ROTATION : tb.ROTATION + 9].reshape(-1, 3, 3)
    normal = (rotation * torch.stack([nx, ny, nz], -1)[:, None]).sum(-1)
    center = solid[:, tb.CENTER : tb.CENTER + 3]
    world = (rotation * torch.stack([x, y, z], -1)[:, None]).sum(-1) + center
    eye = torch.stack([views[:, tb.POSE + 4 * a + 3] for a in range(3)], -1)
    toward = shading.unit(*(eye - world).unbind(-1))
    light = views[:, tb.LIGHT :]
    ambient, lambert, shine = shading.illumination(
        *normal.unbind(-1), *world.unbind(-1), *toward, *light[:, 3:7].unbind(-1), light[:, 10],
        material[:, tb.SURFACE + GLOSS],
    )  # fmt: skip
    reached = _reached(tables, view, k, world, normal)
    terms = (t[:, None] for t in (ambient, lambert, shine, reached))
    return shading.lit(albedo, light[:, :3], light[:, 7:10], *terms)


def _albedo(
    material: Float[Tensor, "m 19"], k: Tensor, face: Tensor, u0: Tensor, v0: Tensor, eu: Tensor, ev: Tensor,
    photos: Tensor,
) -> Float[Tensor, "m 3"]:  # fmt: skip
    """Colours of surfaces at (u0, v0), where a pixel spans (eu, ev)."""
    surface = material[:, tb.SURFACE :].unbind(-1)
    scale, cos, sin = surface[0], surface[COS], surface[SIN]
    u, v = (cos * u0 + sin * v0) / scale, (cos * v0 - sin * u0) / scale
    fu, fv = (cos.abs() * eu + sin.abs() * ev) / scale, (cos.abs() * ev + sin.abs() * eu) / scale
    seed = shading.side_seed(material[:, tb.TEXTURE_SEED].long(), k, face)
    grime = shading.grime(u0 / surface[GRIME_SCALE], v0 / surface[GRIME_SCALE], seed, surface[GRIME])[:, None]
    kind = material[:, tb.TEXTURE]
    weights = torch.zeros(5, len(u), dtype=u.dtype, device=u.device)
    for code, texture in _TEXTURES.items():
        rows = (kind == code).nonzero()[:, 0]
        if len(rows):
            arguments = (t[rows] for t in (u, v, fu, fv, seed, surface[P], surface[Q]))
            weights[:, rows] = torch.stack(texture(*arguments))
    a, b, shade, pick, colourful = weights[..., None]
    colors = material[:, tb.COLORS : tb.COLORS + 9].reshape(-1, 3, 3)
    random = torch.stack(shading.random_color(pick[:, 0]), -1)
    out = shading.blended(a, b, shade, colourful, *colors.unbind(1), random, grime)
    rows = (kind == textures.PHOTO).nonzero()[:, 0]
    if len(rows):
        photo = photo_color(photos, u[rows], v[rows], torch.maximum(fu, fv)[rows], seed[rows])
        out[rows] = clamp01(torch.stack(photo, -1) * grime[rows])
    return out


def _reached(
    tables: tb.Tables, view: Tensor, k: Tensor, point: Float[Tensor, "m 3"], normal: Float[Tensor, "m 3"]
) -> Float[Tensor, "m"]:
    """Light that reaches points past the solids around them and the walls of their room."""
    views = tables.views[view]
    strength, room = views[:, tb.LIGHT + OCCLUSION], views[:, tb.ROOM_INDEX].long()
    hidden = torch.zeros_like(strength)
    for j in range(tables.solids.shape[1]):
        occluder = tables.solids[:, j, tb.CENTER : tb.KIND + 1][view]
        offset, radius, kind = occluder[:, :3] - point, occluder[:, 3], occluder[:, 4]
        share = shading.occlusion(*offset.unbind(-1), *normal.unbind(-1), radius)
        counts: Bool[Tensor, "m"] = (kind != shapes.UNUSED) & (kind != shapes.ROOM) & (k != j)
        hidden = hidden + torch.where(counts, share, 0.0)
    light = 1.0 - strength * (0.7 * hidden).clamp_max(0.75)
    shell = tables.solids[view, room.clamp_min(0)]
    half = shell[:, tb.HALF : tb.HALF + 3]
    gap = half - (point - shell[:, tb.CENTER : tb.CENTER + 3]).abs()
    reach = 0.3 * half.amin(-1, keepdim=True)
    corner = shading.wall_occlusion(gap, normal.abs(), reach).prod(-1)
    return torch.where(room >= 0, light * mix(1.0, corner, strength), light)
