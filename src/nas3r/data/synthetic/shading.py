"""From a hit to a colour: texture coordinates, pixel extent, light and sky, as formulas (see `ops`)."""

from nas3r.data.synthetic.ops import clamp01, formula, maximum, minimum, mix, sqrt, where
from nas3r.data.synthetic.textures import value_noise


@formula
def dominant_axis(nx, ny, nz):
    """0, 1 or 2 (as a float): the axis a surface faces most."""
    ax, ay, az = abs(nx), abs(ny), abs(nz)
    one = 0.0 * nx
    return where((ax >= ay) & (ax >= az), one, where(ay >= az, one + 1.0, one + 2.0))


@formula
def pick_plane(axis, x, y, z):
    """The two coordinates along the surface: horizontal first, so that rows of texture lie level on walls."""
    return where(axis == 0.0, z, x), where(axis == 1.0, z, y)


@formula
def unit(x, y, z):
    """The vector scaled to length 1 (zero stays zero)."""
    length = maximum(sqrt(x * x + y * y + z * z), 1e-12)
    return x / length, y / length, z / length


@formula
def pixel_extent(dx, dy, dz, sx, sy, sz, nx, ny, nz):
    """How far the hit point moves on the surface's plane when the ray is turned to the next pixel.

    `d` leads from the camera to the point, `s` is its change from pixel to pixel at constant depth, `n` the
    surface's unit normal, all in the solid's frame.
    """
    length = sqrt(dx * dx + dy * dy + dz * dz)
    # Grazing views are limited to 20 times the frontal extent.
    along = minimum(nx * dx + ny * dy + nz * dz, -0.05 * length)
    slide = (nx * sx + ny * sy + nz * sz) / along
    return abs(sx - slide * dx), abs(sy - slide * dy), abs(sz - slide * dz)


@formula
def side_seed(seed, solid, face):
    """Texture seed of one side of a solid: sides and solids of one material differ."""
    return seed + 613 * face + 7907 * solid


@formula
def grime(u, v, seed, strength):
    """Large-scale variation of brightness about 1."""
    return 1.0 + strength * (2.0 * value_noise(u + 0.5, v + 0.5, seed + 77) - 1.0)


@formula
def random_color(pick):
    """A colour from a number: any hue, mostly muted."""
    a, b, c = pick * 7.31, pick * 19.7, pick * 43.3
    a, b, c = a - (a // 1.0), b - (b // 1.0), c - (c // 1.0)
    grey = 0.05 + 0.6 * a * a
    r = mix(grey, b, 0.55)
    g = mix(grey, 0.8 * c, 0.45)
    blue = mix(grey, 1.0 - b, 0.5)
    return r * r, g * g, blue * blue


@formula
def blended(a, b, shade, colourful, c0, c1, c2, random, grime):
    """One channel of a texture's colour."""
    return clamp01(mix(mix(mix(c0, c1, a), c2, b), random, colourful) * shade * grime)


# Squared distance, in units of the occluder's squared radius, beyond which it hides nothing.
OCCLUSION_REACH = 16.0


@formula
def occlusion(x, y, z, nx, ny, nz, radius):
    """Share of the light over a surface that a ball at (x, y, z) from it hides.

    The cosine-weighted solid angle of the ball, faded to zero at `OCCLUSION_REACH`.
    """
    squared = maximum(x * x + y * y + z * z, 1e-6)
    cosine = maximum(nx * x + ny * y + nz * z, 0.0) / sqrt(squared)
    share = minimum(radius * radius / squared, 1.0) - 1.0 / OCCLUSION_REACH
    return cosine * maximum(share, 0.0)


@formula
def wall_occlusion(gap, on_axis, reach):
    """Light left near a wall at distance `gap`; all of it near the wall that the point lies on."""
    nearness = maximum(1.0 - maximum(gap, 0.0) / reach, 0.0)
    return 1.0 - 0.4 * nearness * nearness * (1.0 - on_axis)


@formula
def lit(albedo, ambient_color, lamp_color, ambient, lambert, shine, reached):
    """One channel of the light that a surface sends to the camera."""
    lamp = lambert * (0.4 + 0.6 * reached)
    return albedo * (ambient_color * ambient * reached + lamp_color * lamp) + lamp_color * shine


@formula
def illumination(nx, ny, nz, px, py, pz, vx, vy, vz, lx, ly, lz, point, reach, gloss):
    """(ambient factor, lamp factor, highlight) at a surface.

    The lamp is a point at (lx, ly, lz) where `point` is 1, and a direction towards the sun where it is 0.
    `v` is the unit vector from the surface to the camera. y points down, so surfaces facing up have ny < 0.
    """
    tx, ty, tz = lx - point * px, ly - point * py, lz - point * pz
    squared = maximum(tx * tx + ty * ty + tz * tz, 1e-6)
    distance = sqrt(squared)
    tx, ty, tz = tx / distance, ty / distance, tz / distance
    facing = nx * tx + ny * ty + nz * tz
    falloff = mix(1.0 + 0.0 * distance, 1.3 * reach * reach / (0.3 * reach * reach + squared), point)
    lambert = clamp01((facing + 0.15) / 1.15) * falloff
    hx, hy, hz = tx + vx, ty + vy, tz + vz
    half = sqrt(hx * hx + hy * hy + hz * hz)
    shine = clamp01((nx * hx + ny * hy + nz * hz) / maximum(half, 1e-6))
    shine = shine * shine
    shine = shine * shine
    shine = shine * shine
    shine = shine * shine
    return 1.0 - 0.25 * ny, lambert, gloss * shine * shine * falloff


@formula
def sky_weights(x, y, z, seed):
    """(towards zenith, cloud) along a viewing direction; y points down."""
    length = sqrt(x * x + y * y + z * z)
    up = -y / length
    height = maximum(up, 0.0) + 0.15
    u, v = x / (length * height), z / (length * height)
    soft = value_noise(1.3 * u, 1.3 * v, seed) * 0.6 + value_noise(3.1 * u, 3.1 * v, seed + 1) * 0.4
    return clamp01(up * 1.6 + 0.1), clamp01((soft - 0.45) * 3.0) * clamp01(up * 4.0)


@formula
def sky(horizon, zenith, up, cloud):
    """One channel of the sky."""
    return mix(mix(horizon, zenith, up), 0.9, 0.8 * cloud)


@formula
def tone(linear, exposure):
    """Display value of linear light: gain, a soft shoulder, square-root gamma."""
    x = linear * exposure
    return sqrt(clamp01(x * (1.0 + 0.25 * x) / (1.0 + x * 0.25 + x * x * 0.25)))
