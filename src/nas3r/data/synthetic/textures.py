"""Procedural textures: formulas (see `ops`) of a surface's own coordinates.

A texture is a function of (u, v), lengths along the surface in units of the texture, and of (fu, fv), the
extent of a pixel there. Edges are averaged over that extent and detail finer than it fades to its mean, so
that what is seen from afar is what a camera would see, and the same surface point has the same colour in
every view.

Each returns `(a, b, shade, pick, colourful)`: the colour is the first of the material's three colours,
blended to the second by `a`, then to the third by `b`, then to a random colour (chosen by `pick` in [0, 1))
by `colourful`, and multiplied by `shade`.
"""

from nas3r.data.synthetic.ops import (
    clamp01,
    floor,
    formula,
    maximum,
    minimum,
    mix,
    random_unit,
    sqrt,
    to_int,
    wave,
)

(
    NOISE,
    CHECKER,
    STRIPES,
    BRICKS,
    WOOD,
    MARBLE,
    LEAVES,
    SPOTS,
    GLYPHS,
    POSTERS,
    BARS,
    FACADE,
    MOSAIC,
    PICTURE,
    PHOTO,
) = range(15)
NAMES = (
    "noise",
    "checker",
    "stripes",
    "bricks",
    "wood",
    "marble",
    "leaves",
    "spots",
    "glyphs",
    "posters",
    "bars",
    "facade",
    "mosaic",
    "picture",
    "photo",
)


@formula
def value_noise(u, v, seed):
    """Smooth random values in [0, 1) with features of size 1."""
    iu, iv = floor(u), floor(v)
    x, y = u - iu, v - iv
    x, y = x * x * (3.0 - 2.0 * x), y * y * (3.0 - 2.0 * y)
    i, j = to_int(iu), to_int(iv)
    top = mix(random_unit(i, j, seed), random_unit(i + 1, j, seed), x)
    bottom = mix(random_unit(i, j + 1, seed), random_unit(i + 1, j + 1, seed), x)
    return mix(top, bottom, y)


@formula
def visible(footprint):
    """How much of a detail of size 1 survives averaging over a pixel: 1 below 0.4, 0 from 1.2 on."""
    return clamp01((1.2 - footprint) * 1.25)


@formula
def fractal(u, v, fu, fv, seed, octaves):
    """Octaves of noise with amplitude proportional to size; mean 0.5, octaves below the pixel left out."""
    footprint = sqrt(fu * fv)
    total = 0.0 * u
    amplitude, frequency = 1.0, 1.0
    for octave in range(octaves):
        weight = visible(footprint * frequency) * amplitude
        total = total + weight * (value_noise(u * frequency, v * frequency, seed + 101 * octave) - 0.5)
        amplitude, frequency = amplitude * 0.6, frequency * 2.03
    return 0.5 + total


@formula
def _pulse_integral(x, duty):
    whole = floor(x)
    return whole * duty + minimum(x - whole, duty)


@formula
def pulse(x, footprint, duty):
    """A wave of period 1 that is 1 for the first `duty` of it, averaged over the pixel (exact box filter)."""
    w = maximum(footprint, 1e-4)
    return (_pulse_integral(x + 0.5 * w, duty) - _pulse_integral(x - 0.5 * w, duty)) / w


@formula
def box(x, low, high, footprint):
    """1 for low < x < high, with edges as wide as the pixel."""
    w = maximum(footprint, 1e-3)
    return clamp01((x - low) / w + 0.5) * clamp01((high - x) / w + 0.5)


@formula
def noise(u, v, fu, fv, seed, p, q):
    """Plaster, carpet, rock: octaves, stretched along u by `q`, contrast `p`."""
    first = fractal(u * q, v, fu * q, fv, seed, 4)
    second = value_noise(u * 0.7, v * 0.7, seed + 7)
    return clamp01(0.5 + (first - 0.5) * p), clamp01(second * 2.0 - 1.0), 1.0 + 0.0 * u, second, 0.0 * u


@formula
def checker(u, v, fu, fv, seed, p, q):
    """Two colours in turn, each square a little different."""
    a, b = pulse(0.5 * u, 0.5 * fu, 0.5), pulse(0.5 * v, 0.5 * fv, 0.5)
    tone = random_unit(to_int(floor(u)), to_int(floor(v)), seed) - 0.5
    return a + b - 2.0 * a * b, 0.0 * u, 1.0 + 0.3 * tone * visible(maximum(fu, fv)), 0.0 * u, 0.0 * u


@formula
def stripes(u, v, fu, fv, seed, p, q):
    """Stripes of width `p` with a thin line of the third colour."""
    line = pulse(u + 0.3, fu, 0.12)
    return pulse(u, fu, 0.2 + 0.6 * p), line * 0.8, 1.0 + 0.0 * u, 0.0 * u, 0.0 * u


@formula
def bricks(u, v, fu, fv, seed, p, q):
    """Rows of bricks or planks with joints of the second colour, each of its own tone."""
    row = floor(2.0 * v)
    x = u + 0.5 * row * q
    joint = 1.0 - pulse(x, fu, 0.93) * pulse(2.0 * v, 2.0 * fv, 0.87)
    tone = random_unit(to_int(floor(x)), to_int(row), seed)
    seen = visible(maximum(fu, 2.0 * fv))
    return (
        joint,
        clamp01((tone - 0.6) * 2.5) * (1.0 - joint) * seen,
        1.0 + (tone - 0.5) * p * seen,
        tone,
        0.0 * u,
    )


@formula
def wood(u, v, fu, fv, seed, p, q):
    """Planks along u with grain."""
    row = floor(v)
    plank = random_unit(to_int(row), to_int(floor(u * 0.25 + 0.37 * row)), seed)
    warp = value_noise(u * 0.6, v * 2.0, seed + 3)
    rings = 0.5 + 0.5 * wave(v * (1.5 + q) + 2.5 * warp + 7.0 * plank) * visible(fv * 2.0)
    fibre = fractal(u * 0.8, v * 8.0, fu * 0.8, fv * 8.0, seed + 5, 2)
    seam = 1.0 - pulse(v, fv, 0.95)
    return clamp01(0.7 * rings + 0.6 * (fibre - 0.3)), seam * 0.8, 1.0 + (plank - 0.5) * p, plank, 0.0 * u


@formula
def marble(u, v, fu, fv, seed, p, q):
    """Warped veins."""
    warp = fractal(u, v, fu, fv, seed, 4)
    vein = 1.0 - abs(wave(0.4 * u + 0.3 * v + (1.0 + q) * warp))
    return (
        clamp01(vein * vein * vein * visible(sqrt(fu * fv)) * 1.2),
        clamp01(1.5 * warp - 0.5),
        1.0 + 0.0 * u,
        warp,
        0.0 * u,
    )


@formula
def leaves(u, v, fu, fv, seed, p, q):
    """Overlapping blobs over dark gaps, in three sizes."""
    total, light = 0.0 * u, 0.0 * u
    frequency = 1.0
    for layer in range(3):
        x = u * frequency + 0.37 * layer + 0.3 * wave(v * frequency * 0.5)
        y = v * frequency + 0.61 * layer + 0.3 * wave(u * frequency * 0.5)
        i, j = floor(x), floor(y)
        r = random_unit(to_int(i), to_int(j), seed + 31 * layer)
        s = random_unit(to_int(i), to_int(j), seed + 31 * layer + 17)
        dx, dy = x - i - 0.35 - 0.3 * r, y - j - 0.35 - 0.3 * s
        blob = clamp01(1.6 - 4.0 * sqrt(dx * dx + (1.0 + s) * dy * dy))
        seen = visible(sqrt(fu * fv) * frequency)
        cover = mix(0.5 + 0.0 * u, blob, seen)
        light = mix(light, 0.5 + (r - 0.5) * seen, cover)
        total = maximum(total, cover)
        frequency = frequency * 1.9
    return clamp01(light * 1.6 - 0.2), 0.0 * u, 0.25 + 0.75 * total, light, 0.0 * u


@formula
def spots(u, v, fu, fv, seed, p, q):
    """A round spot of random size and colour in most cells."""
    i, j = floor(u), floor(v)
    r = random_unit(to_int(i), to_int(j), seed)
    s = random_unit(to_int(i), to_int(j), seed + 9)
    radius = 0.15 + 0.3 * r
    dx, dy = u - i - 0.5 - (0.5 - radius) * (2.0 * s - 1.0), v - j - 0.5
    footprint = maximum(sqrt(fu * fv), 1e-3)
    inside = clamp01((radius - sqrt(dx * dx + dy * dy)) / footprint + 0.5)
    seen = visible(footprint)
    return mix(0.3 + 0.0 * u, inside, seen), 0.0 * u, 1.0 + 0.0 * u, s, inside * seen * p


@formula
def glyphs(u, v, fu, fv, seed, p, q):
    """Lines of text: words of letters on a 3 by 5 grid, ragged lines, paragraphs."""
    line = floor(v)
    length = 8.0 + 16.0 * random_unit(to_int(line), 0 * to_int(line), seed + 3)
    column = u * 1.7
    letter = floor(column)
    page = letter - 26.0 * floor(letter / 26.0)
    x, y = (column - letter) * 4.0, (v - line) * 7.0
    inside = box(x, 0.0, 3.0, fu * 6.8) * box(y, 0.0, 5.0, fv * 7.0)
    code = random_unit(to_int(letter), to_int(line), seed)
    written = clamp01((code - 0.17) * 1e4) * clamp01((length - page) * 1e4)
    i, j = to_int(floor(x)), to_int(floor(y))
    dot = random_unit(i + 3 * j, to_int(code * 97.0), seed + 5)
    fine = visible(maximum(fu * 6.8, fv * 7.0))
    ink = mix(0.5 + 0.0 * u, clamp01((dot - 0.42) * 1e4), fine)
    ink = mix(0.3 + 0.0 * u, inside * written * ink, visible(maximum(fu * 1.2, fv)))
    return ink, 0.0 * u, 1.0 + 0.0 * u, code, 0.0 * u


@formula
def posters(u, v, fu, fv, seed, p, q):
    """Framed pictures of random colours and layout, hung on a plain wall."""
    i, j = floor(u), floor(v)
    r = random_unit(to_int(i), to_int(j), seed)
    s = random_unit(to_int(i), to_int(j), seed + 9)
    x, y = u - i, v - j
    half_width, half_height = 0.18 + 0.25 * r, 0.2 + 0.24 * s
    framed = box(x, 0.5 - half_width, 0.5 + half_width, fu) * box(y, 0.5 - half_height, 0.5 + half_height, fv)
    inner = box(x, 0.55 - half_width, 0.45 + half_width, fu) * box(
        y, 0.55 - half_height, 0.45 + half_height, fv
    )
    hung = clamp01((r * 7.0 - floor(r * 7.0) - 0.25) * 1e4) * visible(0.5 * maximum(fu, fv))
    detail = value_noise(x * (3.0 + 5.0 * s), y * (3.0 + 5.0 * r), seed + to_int(r * 4096.0))
    horizon = box(y, 0.3 + 0.4 * r, 2.0, fv)
    pick = s + 0.31 * horizon + 0.2 * clamp01((detail - 0.55) * 8.0)
    return framed * hung, 0.0 * u, 1.0 + 0.3 * (detail - 0.5) * inner * hung, pick, inner * hung


@formula
def bars(u, v, fu, fv, seed, p, q):
    """Spines on shelves: columns of random width, height and colour between boards of the third colour."""
    shelf = floor(v)
    s = to_int(shelf)
    x = u * 5.0 + 0.35 * wave(u * 0.77 + 0.61 * shelf) + 7.0 * random_unit(s, 0 * s, seed)
    column = floor(x)
    r = random_unit(to_int(column), s, seed + 1)
    y = v - shelf
    board = box(y, 0.93, 1.1, fv)
    book = box(y, 0.1 + 0.3 * r, 0.93, fv) * box(x - column, 0.04, 1.0, fu * 5.0)
    label = box(y, 0.5, 0.6, fv) * visible(fv * 6.0)
    seen = visible(0.6 * maximum(fu * 5.0, fv))
    cover = mix(0.6 + 0.0 * u, book, seen)
    return 1.0 - cover, board, 1.0 + 0.4 * label * cover, r, cover * seen * (1.0 - board)


@formula
def facade(u, v, fu, fv, seed, p, q):
    """Storeys of framed windows, some lit, with a ledge under each."""
    i, j = floor(u), floor(v)
    r = random_unit(to_int(i), to_int(j), seed)
    x, y = u - i, v - j
    w = 0.16 + 0.14 * p
    frame = box(x, 0.46 - w, 0.54 + w, fu) * box(y, 0.17, 0.83, fv)
    pane = box(x, 0.5 - w, 0.5 + w, fu) * box(y, 0.22, 0.78, fv) * (1.0 - box(x, 0.48, 0.52, fu))
    ledge = box(y, 0.83, 0.9, fv)
    seen = visible(maximum(fu, fv))
    shade = 1.0 + seen * (pane * (1.6 * r - 0.9) - 0.25 * ledge)
    return mix(0.3 + 0.0 * u, frame, seen), mix(0.3 + 0.0 * u, pane, seen), shade, r, 0.0 * u


@formula
def mosaic(u, v, fu, fv, seed, p, q):
    """Square tiles with joints, some of a random colour."""
    r = random_unit(to_int(floor(u)), to_int(floor(v)), seed)
    joint = 1.0 - pulse(u, fu, 0.92) * pulse(v, fv, 0.92)
    seen = visible(maximum(fu, fv))
    return joint * 0.8, 0.0 * u, 1.0 + (r - 0.5) * 0.6 * seen, r, (1.0 - joint) * seen * p


@formula
def picture(u, v, fu, fv, seed, p, q):
    """A made-up painting: blended noise, a horizon, a disc and a block of other colours."""
    r = random_unit(seed, 0 * seed, 11 + 0 * seed)
    s = random_unit(seed, 0 * seed, 13 + 0 * seed)
    a = fractal(u * 1.5, v * 1.5, fu * 1.5, fv * 1.5, seed, 4)
    b = value_noise(u * 1.1, v * 2.2, seed + 3)
    footprint = maximum(sqrt(fu * fv), 1e-3)
    period_u, period_v = u * 0.45 - floor(u * 0.45), v * 0.45 - floor(v * 0.45)
    dx, dy = period_u - 0.3 - 0.4 * r, period_v - 0.3 - 0.4 * s
    disc = clamp01((0.12 + 0.15 * s - sqrt(dx * dx + dy * dy)) / footprint + 0.5)
    block = box(period_u, 0.1 + 0.5 * s, 0.4 + 0.5 * s, 0.45 * fu) * box(
        period_v, 0.5 * r, 0.3 + 0.6 * r, 0.45 * fv
    )
    seen = visible(0.5 * footprint)
    return (
        clamp01(2.4 * a - 0.7),
        clamp01(3.0 * b - 1.2),
        1.0 + 0.0 * u,
        r + 0.37 * disc,
        maximum(disc, block) * seen * 0.8,
    )
