"""`.spz` files: about a tenth of the PLY, the open format that Niantic published.

A gzip stream of a 16-byte header and the attributes one after the other: positions (24-bit fixed point),
opacities, base colours, log scales (8 bits), rotations and spherical harmonics (8 bits). Version 3 stores the
three smallest components of a quaternion with 10 bits each, version 2 its xyz with 8 bits.

The world of an SPZ file has x right, y UP and z BACK ("RUB"), the OpenGL convention: relative to OpenCV axes
it is turned by 180 degrees about x, which flips the signs of some coefficients and moves nothing else.
"""

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from nas3r.gaussians import Gaussians
from nas3r.io.atomic import write_bytes
from nas3r.io.encoding import SceneArrays, log_scales, scene_arrays, to_byte

MAX_SPZ_SH_DEGREE = 3

_MAGIC = 0x5053474E
_HEADER = struct.Struct("<IIIBBBB")  # magic, version, count, SH degree, fractional bits, flags, reserved
_MOST_GAUSSIANS = 50_000_000  # a small gzip file can claim to hold terabytes
_COLOR_SCALE = 0.15
_LARGEST_FIXED = 2**23 - 1
_QUAT_STEPS = 2**9 - 1  # magnitude steps of a stored quaternion component, which is at most 1/sqrt(2)

# Signs under (x, y, z) -> (x, -y, -z). A spherical harmonic that is odd in (y, z) together changes its
# sign. Degree 1 is (y, z, x), degree 2 (xy, yz, zz, xz, xx - yy), and degree 3
# (y(3xx - yy), xyz, y(5zz - 1), z(5zz - 3), x(5zz - 1), z(xx - yy), x(xx - 3yy)).
_FLIP_XYZ = np.array([1.0, -1, -1])
_FLIP_WXYZ = np.array([1.0, 1, -1, -1])
_FLIP_SH = np.array([-1.0, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1])


def write_spz(path: Path | str, gaussians: Gaussians) -> None:
    """Writes one set of Gaussians as SPZ version 3.

    Args:
        path: File to write (atomically).
        gaussians: A batch of one; spherical harmonics above degree 3 are left out.

    Raises:
        ValueError: If there are several sets in the batch, a value is not finite, or positions are too large
            for 24-bit fixed point.
    """
    scene = scene_arrays(gaussians, MAX_SPZ_SH_DEGREE)
    n, k = scene.sh.shape[:2]
    bits = _fractional_bits(scene.means)
    header = _HEADER.pack(_MAGIC, 3, n, int(k**0.5) - 1, bits, 0, 0)
    data = io.BytesIO()
    # mtime 0: equal scenes give equal files.
    with gzip.GzipFile(fileobj=data, mode="wb", compresslevel=6, mtime=0) as stream:
        stream.write(header)
        for section in _encode(scene, bits):
            stream.write(np.ascontiguousarray(section).tobytes())
    write_bytes(path, data.getvalue())


def read_spz(path: Path | str) -> Gaussians:
    """Reads an SPZ file of version 2 or 3, back to OpenCV axes.

    Returns:
        A batch of one, float32.

    Raises:
        ValueError: If the file is not SPZ, is truncated, or has another version.
    """
    with Path(path).open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            raise ValueError(f"{path}: not an SPZ file of version 2 or 3 (no gzip header)")
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                return _decode(path, stream)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: truncated or damaged SPZ file ({error})") from error


def _fractional_bits(means: Float[np.ndarray, "n 3"]) -> int:
    """As many fractional bits as the largest coordinate allows, at most 20."""
    largest = np.abs(means).max(initial=0.0)
    bits = int(np.floor(np.log2(_LARGEST_FIXED / largest))) if largest > 0 else 20
    if bits < 1:
        raise ValueError(f"gaussians: SPZ holds coordinates up to {_LARGEST_FIXED // 2}, got {largest:.3g}")
    return min(bits, 20)


def _encode(scene: SceneArrays, bits: int) -> list[np.ndarray]:
    k = scene.sh.shape[1]
    fixed = (scene.means * _FLIP_XYZ * 2**bits).round().astype("<i4")
    rest = scene.sh[:, 1:] * _FLIP_SH[: k - 1, None]
    return [
        fixed[..., None].view(np.uint8)[..., :3],
        to_byte(255 * scene.opacities),
        to_byte(255 * (_COLOR_SCALE * scene.sh[:, 0] + 0.5)),
        to_byte(16 * (log_scales(scene.scales) + 10)),
        _pack_quats(scene.quats * _FLIP_WXYZ),
        to_byte(128 + 128 * rest),
    ]


def _pack_quats(quats: Float[np.ndarray, "n 4"]) -> UInt8[np.ndarray, "n 4"]:
    """The smallest three components in the order xyzw, after 2 bits that name the largest."""
    xyzw = np.roll(quats, -1, axis=1)
    rows = np.arange(len(xyzw))
    largest = np.abs(xyzw).argmax(1)
    xyzw = xyzw * np.where(xyzw[rows, largest] < 0, -1, 1)[:, None]
    packed = largest.astype(np.uint32)
    steps = (np.abs(xyzw) * np.sqrt(2) * _QUAT_STEPS).round().clip(0, _QUAT_STEPS).astype(np.uint32)
    for axis in range(4):
        appended = (packed << 10) | ((xyzw[:, axis] < 0).astype(np.uint32) << 9) | steps[:, axis]
        packed = np.where(largest == axis, packed, appended)
    return packed.astype("<u4")[:, None].view(np.uint8)


def _unpack_quats(data: UInt8[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    packed = np.ascontiguousarray(data).view("<u4")[:, 0]
    largest = packed >> 30
    xyzw = np.zeros((len(packed), 4))
    for axis in (3, 2, 1, 0):
        stored = largest != axis
        sign = np.where((packed >> 9) & 1, -1.0, 1.0)
        value = sign * (packed & _QUAT_STEPS) / (_QUAT_STEPS * np.sqrt(2))
        xyzw[:, axis] = np.where(stored, value, 0)
        packed = np.where(stored, packed >> 10, packed)
    xyzw[np.arange(len(packed)), largest] = np.sqrt((1 - (xyzw**2).sum(1)).clip(0))
    return np.roll(xyzw, 1, axis=1)


def _unpack_quats_v2(data: UInt8[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 4"]:
    xyz = data / 127.5 - 1
    w = np.sqrt((1 - (xyz**2).sum(1, keepdims=True)).clip(0))
    return np.concatenate([w, xyz], 1)


def _decode(path: Path | str, stream: gzip.GzipFile) -> Gaussians:
    head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise ValueError(f"{path}: truncated SPZ file")
    magic, version, n, degree, bits, _, _ = _HEADER.unpack(head)
    if magic != _MAGIC or version not in (2, 3) or degree > MAX_SPZ_SH_DEGREE:
        raise ValueError(
            f"{path}: expected SPZ version 2 or 3 with spherical harmonics up to degree 3, "
            f"got magic {magic:#x}, version {version}, degree {degree}"
        )

    def section(width: int) -> UInt8[np.ndarray, "n width"]:
        data = stream.read(n * width)
        if len(data) < n * width:
            raise ValueError(f"{path}: truncated SPZ file")
        return np.frombuffer(data, np.uint8).reshape(n, width)

    if n > _MOST_GAUSSIANS:
        raise ValueError(f"{path}: claims {n} Gaussians, more than the {_MOST_GAUSSIANS} that are read")
    k = (degree + 1) ** 2
    fixed = section(9).reshape(n, 3, 3)
    padded = np.concatenate([np.zeros_like(fixed[..., :1]), fixed], -1)
    # The sign sits in the top byte of the padded word; the shift back extends it.
    means = (padded.view("<i4")[..., 0] >> 8) / 2.0**bits * _FLIP_XYZ
    opacities = section(1)[:, 0] / 255
    base = (section(3) / 255 - 0.5) / _COLOR_SCALE
    scales = np.exp(section(3) / 16 - 10)
    quats = (_unpack_quats(section(4)) if version == 3 else _unpack_quats_v2(section(3))) * _FLIP_WXYZ
    rest = (section(3 * (k - 1)).reshape(n, k - 1, 3) - 128.0) / 128 * _FLIP_SH[: k - 1, None]
    stream.read(1)  # past the end: checks the sum at the end of the gzip stream
    sh = np.concatenate([base[:, None], rest], 1)
    arrays = (means, quats, scales, opacities, sh)
    return Gaussians(*(torch.from_numpy(array.astype(np.float32))[None] for array in arrays))
