"""`.splat` files: 32 bytes per Gaussian, the format of the antimatter15 web viewer.

Each record is position (3 float32), scale (3 float32, linear), colour and opacity (4 bytes, RGBA) and
rotation (4 bytes, wxyz, 128 + 128 q). Colour does not depend on the view. There is no header; the axes are
those of the PLY.
"""

from pathlib import Path

import numpy as np
import torch

from nas3r.gaussians import SH_C0, Gaussians
from nas3r.io.atomic import write_bytes
from nas3r.io.encoding import base_colors, scene_arrays, to_byte

_RECORD = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def write_splat(path: Path | str, gaussians: Gaussians) -> None:
    """Writes one set of Gaussians, large and opaque ones first so that viewers can show a part of the file.

    Args:
        path: File to write (atomically).
        gaussians: A batch of one.

    Raises:
        ValueError: If there are several sets in the batch or a value is not finite.
    """
    scene = scene_arrays(gaussians, max_sh_degree=0)
    records = np.empty(len(scene.means), _RECORD)
    records["mean"], records["scale"] = scene.means, scene.scales
    records["rgba"] = to_byte(255 * np.concatenate([base_colors(scene.sh), scene.opacities[:, None]], 1))
    records["quat"] = to_byte(128 + 128 * scene.quats)
    order = np.argsort(-scene.scales.prod(1) * scene.opacities, kind="stable")
    write_bytes(path, records[order].tobytes())


def read_splat(path: Path | str) -> Gaussians:
    """Reads a `.splat` file.

    Returns:
        A batch of one, float32, spherical harmonics of degree 0.

    Raises:
        ValueError: If the size of the file is not a multiple of 32 bytes.
    """
    data = Path(path).read_bytes()
    if len(data) % _RECORD.itemsize:
        raise ValueError(f"{path}: expected a multiple of {_RECORD.itemsize} bytes, got {len(data)}")
    records = np.frombuffer(data, _RECORD)
    rgba = torch.from_numpy(records["rgba"] / np.float32(255))
    quats = torch.from_numpy((records["quat"].astype(np.float32) - 128) / 128)
    means, scales = (torch.from_numpy(records[name].astype(np.float32)) for name in ("mean", "scale"))
    sh = (rgba[:, None, :3] - 0.5) / SH_C0
    quats = torch.nn.functional.normalize(quats, dim=-1)
    return Gaussians(means[None], quats[None], scales[None], rgba[None, :, 3], sh[None])
