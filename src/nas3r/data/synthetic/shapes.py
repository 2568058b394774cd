"""Ray intersections and surface directions of the solids a world is made of.

Every solid is a unit shape inside the cube [-1, 1]^3, stretched by its half extents, rotated and moved. A
ray is brought into that unit frame by the same affine map, under which its parameter t does not change. All
functions are formulas (see `ops`): arguments are components, tensors or numbers.
"""

from nas3r.data.synthetic.ops import formula, maximum, minimum, pending, sqrt, wave, where

UNUSED, BOX, ELLIPSOID, CYLINDER, PRISM, ROUGH, TORUS, ROOM = range(8)
SOLIDS = (BOX, ELLIPSOID, CYLINDER, PRISM, ROUGH, TORUS)

NO_HIT = 1e9
_TINY = 1e-9
# A rough solid or a torus is searched at this many points of the ray's way through its cube; a lobe that is
# thinner along the ray than 1/16 of that way can be missed, which moves silhouettes by a fraction of a
# percent.
_MARCH_STEPS = 16
# 3 halvings leave a bracket of at most 2 sqrt(3) / 16 / 8 = 0.03 of the solid's half size, and false position
# then errs by the curvature times its square: 1e-4 after one step, about 1e-6 after three.
_HALVINGS, _REFINEMENTS = 3, 6


@formula
def _safe(d):
    return where(abs(d) < _TINY, _TINY + 0.0 * d, d)


@formula
def slab(o, d):
    """Where a ray enters and leaves the slab -1 <= x <= 1."""
    inverse = 1.0 / _safe(d)
    middle, extent = -o * inverse, abs(inverse)
    return middle - extent, middle + extent


@formula
def cube_interval(ox, oy, oz, dx, dy, dz):
    """Where a ray enters and leaves the unit cube (entry > exit if it misses)."""
    x0, x1 = slab(ox, dx)
    y0, y1 = slab(oy, dy)
    z0, z1 = slab(oz, dz)
    return maximum(maximum(x0, y0), z0), minimum(minimum(x1, y1), z1)


@formula
def _front(entry, leave):
    return where((entry < leave) & (entry > 0.0), entry, NO_HIT + 0.0 * entry)


@formula
def hit_box(ox, oy, oz, dx, dy, dz):
    """First hit with the cube from outside."""
    entry, leave = cube_interval(ox, oy, oz, dx, dy, dz)
    return _front(entry, leave)


@formula
def hit_room(ox, oy, oz, dx, dy, dz):
    """Hit with the walls of the cube from inside."""
    entry, leave = cube_interval(ox, oy, oz, dx, dy, dz)
    return where((entry < leave) & (leave > 0.0), leave, NO_HIT + 0.0 * leave)


@formula
def hit_ellipsoid(ox, oy, oz, dx, dy, dz):
    """First hit with the unit sphere from outside."""
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - 1.0
    discriminant = b * b - a * c
    root = sqrt(discriminant)
    return where(discriminant > 0.0, _front((-b - root) / a, (-b + root) / a), NO_HIT + 0.0 * a)


@formula
def hit_cylinder(ox, oy, oz, dx, dy, dz):
    """First hit with the cylinder x^2 + z^2 <= 1, |y| <= 1, from outside."""
    a = maximum(dx * dx + dz * dz, _TINY)
    b = ox * dx + oz * dz
    discriminant = b * b - a * (ox * ox + oz * oz - 1.0)
    root = sqrt(discriminant)
    y0, y1 = slab(oy, dy)
    entry = maximum(y0, (-b - root) / a)
    leave = minimum(y1, (-b + root) / a)
    return where(discriminant > 0.0, _front(entry, leave), NO_HIT + 0.0 * a)


@formula
def _half_space(value, slope, entry, leave):
    """Cuts a ray's interval by value + t * slope <= 0."""
    crossing = -value / _safe(slope)
    return (
        where(slope < 0.0, maximum(entry, crossing), entry),
        where(slope < 0.0, leave, minimum(leave, crossing)),
    )


@formula
def hit_prism(ox, oy, oz, dx, dy, dz):
    """First hit with a gable roof: |x| <= (1 + y) / 2, y <= 1, |z| <= 1 (ridge at y = -1; y points down)."""
    entry, leave = slab(oz, dz)
    entry, leave = _half_space(oy - 1.0, dy, entry, leave)
    entry, leave = _half_space(ox - 0.5 - 0.5 * oy, dx - 0.5 * dy, entry, leave)
    entry, leave = _half_space(-ox - 0.5 - 0.5 * oy, -dx - 0.5 * dy, entry, leave)
    return _front(entry, leave)


@formula
def rough_value(x, y, z, amplitude, frequency, squareness, phase):
    """Implicit function of a bumpy solid between a sphere and a rounded cube; negative inside."""
    x2, y2, z2 = x * x, y * y, z * z
    sphere = sqrt(x2 + y2 + z2)
    cube = sqrt(sqrt(x2 * x2 + y2 * y2 + z2 * z2))
    bumps = (
        wave(frequency * (x + 0.6 * y) + phase)
        + wave(frequency * (y + 0.6 * z) + 2.3 * phase)
        + wave(frequency * (z + 0.6 * x) + 5.1 * phase)
    )
    return sphere + (cube - sphere) * squareness - 1.0 + amplitude * (1.0 - bumps / 3.0)


@formula
def torus_value(x, y, z, tube):
    """Implicit function of a ring round the y axis, its tube filling the cube's height; negative inside."""
    ring = (sqrt(x * x + z * z) - (1.0 - tube)) / tube
    return ring * ring + y * y - 1.0


@formula
def implicit_value(x, y, z, rough, p0, p1, p2, p3):
    """Implicit function of a rough solid (`rough` true) or of a ring."""
    if rough:
        return rough_value(x, y, z, p0, p1, p2, p3)
    return torus_value(x, y, z, p0)


@formula
def hit_implicit(ox, oy, oz, dx, dy, dz, rough, p0, p1, p2, p3):
    """First hit with a rough solid or a ring: march through its cube, then close in on the crossing."""
    entry, leave = cube_interval(ox, oy, oz, dx, dy, dz)
    start = maximum(entry, 0.0)
    step = (leave - start) / _MARCH_STEPS
    searching = (entry < leave) & (leave > 0.0)
    near, far = start, start
    near_value, far_value = NO_HIT + 0.0 * start, NO_HIT + 0.0 * start
    for k in range(_MARCH_STEPS):
        if not pending(searching):
            break
        t = start + k * step
        value = implicit_value(ox + t * dx, oy + t * dy, oz + t * dz, rough, p0, p1, p2, p3)
        near, near_value = where(searching, far, near), where(searching, far_value, near_value)
        far, far_value = where(searching, t, far), where(searching, value, far_value)
        searching = searching & (value >= 0.0)
    found = far_value < 0.0
    for k in range(_REFINEMENTS):
        if not pending(found):
            break
        # Halving first, then false position, which is exact up to the curvature in the bracket.
        weight = 0.5 if k < _HALVINGS else near_value / maximum(near_value - far_value, _TINY)
        t = near + (far - near) * weight
        value = implicit_value(ox + t * dx, oy + t * dy, oz + t * dz, rough, p0, p1, p2, p3)
        inside = value < 0.0
        near, near_value = where(inside, near, t), where(inside, near_value, value)
        far, far_value = where(inside, t, far), where(inside, value, far_value)
    crossing = near + (far - near) * near_value / maximum(near_value - far_value, _TINY)
    return where(found, crossing, NO_HIT + 0.0 * far)


@formula
def _sign(x):
    return where(x < 0.0, -1.0 + 0.0 * x, 1.0 + 0.0 * x)


@formula
def normal_box(x, y, z):
    """Outward direction at a point of the cube's surface: the axis it is farthest out on."""
    far = maximum(maximum(abs(x), abs(y)), abs(z))
    on_x, on_y = abs(x) >= far, abs(y) >= far
    zero = 0.0 * x
    return (
        where(on_x, _sign(x), zero),
        where(on_y & (abs(x) < far), _sign(y), zero),
        where((abs(x) < far) & (abs(y) < far), _sign(z), zero),
    )


@formula
def normal_cylinder(x, y, z):
    """Outward direction at a point of the cylinder: its caps or its side."""
    cap = abs(y) > sqrt(x * x + z * z)
    zero = 0.0 * x
    return where(cap, zero, x), where(cap, _sign(y), zero), where(cap, zero, z)


@formula
def normal_prism(x, y, z):
    """Outward direction at a point of the gable roof: bottom, end or slope, whichever is farthest out."""
    slope, bottom, end = abs(x) - 0.5 - 0.5 * y, y - 1.0, abs(z) - 1.0
    on_end = (end > slope) & (end > bottom)
    on_bottom = (bottom >= slope) & (bottom >= end)
    flat = on_end | on_bottom
    zero = 0.0 * x
    return (
        where(flat, zero, _sign(x)),
        where(on_end, zero, where(on_bottom, 1.0 + zero, -0.5 + zero)),
        where(on_end, _sign(z), zero),
    )


_DIFFERENCE = 2e-3  # for central differences, in units of the solid; bumps are 50 times longer


@formula
def normal_rough(x, y, z, amplitude, frequency, squareness, phase):
    """Gradient of `rough_value` by central differences."""
    h = _DIFFERENCE
    gx = rough_value(x + h, y, z, amplitude, frequency, squareness, phase) - rough_value(
        x - h, y, z, amplitude, frequency, squareness, phase
    )
    gy = rough_value(x, y + h, z, amplitude, frequency, squareness, phase) - rough_value(
        x, y - h, z, amplitude, frequency, squareness, phase
    )
    gz = rough_value(x, y, z + h, amplitude, frequency, squareness, phase) - rough_value(
        x, y, z - h, amplitude, frequency, squareness, phase
    )
    return gx, gy, gz


@formula
def normal_torus(x, y, z, tube):
    """Gradient of `torus_value`, up to a positive factor."""
    axis_distance = maximum(sqrt(x * x + z * z), _TINY)
    pull = (axis_distance - (1.0 - tube)) / (tube * tube * axis_distance)
    return x * pull, y, z * pull
