"""PLY files: Gaussians in the layout of the original 3DGS code, and coloured point clouds.

A 3DGS PLY has one `vertex` element of float32 properties

    x y z nx ny nz f_dc_0..2 f_rest_* opacity scale_0..2 rot_0..3

where `opacity` is a logit, `scale_*` are natural logarithms, `rot_*` is a quaternion wxyz and `f_rest_*`
holds the higher spherical harmonics channel by channel (all red coefficients first). Axes are those of the
world, OpenCV here, as in scenes that were made from COLMAP poses.
"""

import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from nas3r.gaussians import Gaussians
from nas3r.io.atomic import write_bytes
from nas3r.io.encoding import log_scales, logit_opacities, scene_arrays

MAX_PLY_SH_DEGREE = 3

_NUMPY_TYPES = {
    **dict.fromkeys(("float", "float32"), "<f4"),
    **dict.fromkeys(("double", "float64"), "<f8"),
    **dict.fromkeys(("char", "int8"), "<i1"),
    **dict.fromkeys(("uchar", "uint8"), "<u1"),
    **dict.fromkeys(("short", "int16"), "<i2"),
    **dict.fromkeys(("ushort", "uint16"), "<u2"),
    **dict.fromkeys(("int", "int32"), "<i4"),
    **dict.fromkeys(("uint", "uint32"), "<u4"),
}
_REQUIRED = (
    *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_PLY_NAMES = {"<f4": "float", "|u1": "uchar"}
_MAX_HEADER_BYTES = 1 << 16


def write_ply(path: Path | str, gaussians: Gaussians) -> None:
    """Writes one set of Gaussians as a 3DGS PLY.

    Spherical harmonics above degree 3 are left out: no viewer reads them.

    Args:
        path: File to write (atomically).
        gaussians: A batch of one.

    Raises:
        ValueError: If there are several sets in the batch or a value is not finite.
    """
    scene = scene_arrays(gaussians, MAX_PLY_SH_DEGREE)
    n, k = scene.sh.shape[:2]
    rest = scene.sh[:, 1:].transpose(0, 2, 1).reshape(n, 3 * (k - 1))  # channel-major
    columns = [
        ("x y z", scene.means),
        ("nx ny nz", np.zeros((n, 3))),
        ("f_dc_0 f_dc_1 f_dc_2", scene.sh[:, 0]),
        (" ".join(f"f_rest_{i}" for i in range(3 * (k - 1))), rest),
        ("opacity", logit_opacities(scene.opacities)[:, None]),
        ("scale_0 scale_1 scale_2", log_scales(scene.scales)),
        ("rot_0 rot_1 rot_2 rot_3", scene.quats),
    ]
    names = [name for group, _ in columns for name in group.split()]
    table = np.concatenate([values for _, values in columns], 1).astype("<f4")
    _write_vertices(path, table.view([(name, "<f4") for name in names]).reshape(n))


def read_ply(path: Path | str) -> Gaussians:
    """Reads a 3DGS PLY, in any order of its properties.

    Returns:
        A batch of one, float32.

    Raises:
        ValueError: If the file is not a 3DGS PLY, or is truncated.
    """
    vertices = _read_vertices(path)
    have = set(vertices.dtype.names or ())
    if missing := [name for name in _REQUIRED if name not in have]:
        raise ValueError(f"{path}: not a 3D Gaussian PLY, it has no property {', '.join(missing)}")
    num_rest = sum(name.startswith("f_rest_") for name in have)
    if num_rest not in (0, 9, 24, 45):
        raise ValueError(f"{path}: expected 0, 9, 24 or 45 f_rest properties, got {num_rest}")

    def columns(pattern: str, count: int) -> torch.Tensor:
        names = [pattern.format(i) for i in range(count)]
        return torch.from_numpy(np.stack([vertices[name].astype(np.float32) for name in names], -1))

    n = len(vertices)
    means = torch.stack([torch.from_numpy(vertices[a].astype(np.float32)) for a in "xyz"], -1)
    sh = columns("f_dc_{}", 3)[:, None]
    if num_rest:
        rest = columns("f_rest_{}", num_rest).reshape(n, 3, num_rest // 3)
        sh = torch.cat([sh, rest.transpose(1, 2)], 1)
    opacities = torch.sigmoid(torch.from_numpy(vertices["opacity"].astype(np.float32)))
    scales = torch.exp(columns("scale_{}", 3))
    return Gaussians(means[None], columns("rot_{}", 4)[None], scales[None], opacities[None], sh[None])


def write_point_cloud(
    path: Path | str, points: Float[np.ndarray, "n 3"], colors: UInt8[np.ndarray, "n 3"]
) -> None:
    """Writes coloured points (x y z red green blue) as PLY, atomically."""
    if points.shape != colors.shape or points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(
            f"points and colors: expected two shapes [n, 3], "
            f"got {list(points.shape)} and {list(colors.shape)}"
        )
    table = np.empty(
        len(points),
        [(name, "<f4") for name in ("x", "y", "z")] + [(name, "u1") for name in ("red", "green", "blue")],
    )
    for i, (axis, channel) in enumerate(zip("xyz", ("red", "green", "blue"), strict=True)):
        table[axis], table[channel] = points[:, i], colors[:, i]
    _write_vertices(path, table)


def read_point_cloud(
    path: Path | str,
) -> tuple[Float[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
    """Reads points and colours written by `write_point_cloud`.

    Raises:
        ValueError: If the file has no coloured points, or is truncated.
    """
    vertices = _read_vertices(path)
    names = ("x", "y", "z", "red", "green", "blue")
    if missing := [name for name in names if name not in (vertices.dtype.names or ())]:
        raise ValueError(f"{path}: not a coloured point cloud, it has no property {', '.join(missing)}")
    points, colors = (np.stack([vertices[name] for name in group], -1) for group in (names[:3], names[3:]))
    return points, colors


def _write_vertices(path: Path | str, table: np.ndarray) -> None:
    kinds = {name: table.dtype[name].str for name in table.dtype.names or ()}
    properties = [f"property {_PLY_NAMES[kind]} {name}" for name, kind in kinds.items()]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}", *properties]
    write_bytes(path, "\n".join([*header, "end_header", ""]).encode("ascii") + table.tobytes())


def _read_vertices(path: Path | str) -> np.ndarray:
    """The `vertex` element of a binary little-endian PLY as a structured array."""
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(_MAX_HEADER_BYTES)
        end = re.search(rb"end_header\r?\n", head)
        if not re.match(rb"ply\r?\n", head) or end is None:
            raise ValueError(f"{path}: not a PLY file")
        count, dtype = _parse_header(path, head[: end.start()].decode("ascii", "replace"))
        needed, available = count * dtype.itemsize, path.stat().st_size - end.end()
        if available < needed:
            raise ValueError(f"{path}: truncated, expected {needed} bytes of vertices, got {available}")
        file.seek(end.end())
        return np.frombuffer(file.read(needed), dtype, count)


def _parse_header(path: Path, header: str) -> tuple[int, np.dtype]:
    lines = [line.split() for line in header.splitlines()[1:]]
    lines = [words for words in lines if words and words[0] not in ("comment", "obj_info")]
    if not lines or lines[0] != ["format", "binary_little_endian", "1.0"]:
        got = " ".join(lines[0]) if lines else "nothing"
        raise ValueError(f"{path}: expected a PLY in format binary_little_endian 1.0, got {got!r}")
    if len(lines) < 2 or lines[1][:2] != ["element", "vertex"] or not lines[1][-1].isdigit():
        raise ValueError(f"{path}: expected a PLY whose first element is 'vertex'")
    fields = []
    for words in lines[2:]:
        if words[0] == "element":
            break
        if len(words) != 3 or words[0] != "property" or words[1] not in _NUMPY_TYPES:
            raise ValueError(f"{path}: cannot read the PLY header line {' '.join(words)!r}")
        fields.append((words[2], _NUMPY_TYPES[words[1]]))
    if len({name for name, _ in fields}) != len(fields) or not fields:
        raise ValueError(f"{path}: expected distinct vertex properties in the PLY header")
    return int(lines[1][2]), np.dtype(fields)
