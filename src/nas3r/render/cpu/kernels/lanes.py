"""Where the numbers of Gaussians and cameras lie in the arrays of the projection kernels.

In memory a Gaussian or a camera is a row of floats. For eight Gaussians at a time the rows are transposed:
the eight values of number i of each row, its lanes, begin at `LANES * i`. `take`, `put` and `add` are told i.
"""

from nas3r.render.cpu.kernels.compile import helper
from nas3r.render.cpu.kernels.simd import LANES, load, store

CHUNK = 512  # Gaussians that one task handles

# Of a Gaussian; each is the number of its first float.
MEAN, QUAT, SCALE, OPACITY = 0, 3, 7, 10
PARAMETERS = 16  # floats of its row, with padding

# Of its spherical harmonics: three colours for each of up to 16 basis functions.
BASIS = 16
COEFFICIENTS = 3 * BASIS

# Of a camera: world-to-camera rotation, row by row, and translation; intrinsics in pixels; centre.
ROTATION, TRANSLATION, FX, FY, SKEW, CX, CY, CENTER = 0, 9, 12, 13, 14, 15, 16, 17
CAMERA = 20  # floats of its row


@helper
def take(lanes, i):
    """Eight values of number i."""
    return load(lanes, LANES * i)


@helper
def take3(lanes, i):
    """Eight values each of number i and the two after it."""
    return take(lanes, i), take(lanes, i + 1), take(lanes, i + 2)


@helper
def take4(lanes, i):
    """Eight values each of number i and the three after it."""
    return take(lanes, i), take(lanes, i + 1), take(lanes, i + 2), take(lanes, i + 3)


@helper
def put(lanes, i, value):
    """Writes eight values of number i."""
    store(lanes, LANES * i, value)


@helper
def put3(lanes, i, x, y, z):
    """Writes eight values each of number i and the two after it."""
    put(lanes, i, x)
    put(lanes, i + 1, y)
    put(lanes, i + 2, z)


@helper
def add(lanes, i, value):
    """Adds to the eight values of number i."""
    put(lanes, i, take(lanes, i) + value)


@helper
def add3(lanes, i, x, y, z):
    """Adds to the eight values each of number i and the two after it."""
    add(lanes, i, x)
    add(lanes, i + 1, y)
    add(lanes, i + 2, z)
