#!/usr/bin/env python3
"""Rebuild the synthetic NAS3R parity checkpoints, bit for bit, from key names alone.

Every tensor is a function of its own key and shape:

    n   = number of elements
    raw = numpy.random.Philox(key=crc32(key)).random_raw(ceil(n / 2))   (uint64)
    w   = raw viewed as little-endian uint32, first n words
    u   = float32(w >> 8) * 2**-23 - 1            exact, uniform in [-1, 1)
    x   = float32(centre + float32(amp) * u)      row-major into the shape

Only the bit generator is used (numpy guarantees its stream across versions), never a
distribution, so the result does not depend on the numpy or torch version.
`centre` and `amp` follow from the key: see `rule`.

    make_checkpoint.py keys_nas3r.txt nas3r.ckpt [--step N]
"""

import argparse
import ast
import zlib
from pathlib import Path

import numpy as np

STEP = 12345  # stored as global_step


def unit(key, n):
    """n exact float32 values, uniform in [-1, 1), determined by the key text."""
    gen = np.random.Philox(key=zlib.crc32(key.encode()))
    words = gen.random_raw((n + 1) // 2).astype("<u8").view("<u4")[:n]
    return (words >> 8).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def rule(key, shape):
    """(centre, amplitude) for a key; centre may be an array that broadcasts to shape."""
    last = key.rsplit(".", 1)[-1]
    if key.endswith("camera_head.pose_branch.fc2.bias"):
        return np.array([0, 0, 0, 0, 0, 0, 1, 0.9, 0.9], np.float32), 0.05
    if key.endswith(".fc_rot.bias"):
        return np.array([1, 0, 0, 0, 1, 0], np.float32), 0.05
    if key.endswith(".fc_intrin.bias"):
        return 0.9, 0.05
    gain = 1.0
    if key.endswith(("camera_head.pose_branch.fc2.weight", ".fc_rot.weight", ".fc_intrin.weight")):
        gain = 0.3  # keeps rotations and fields of view in a sensible range
    if last == "gamma":  # LayerScale
        return 0.5, 0.25
    if last == "bias":
        return 0.0, 0.05
    if last == "weight":
        if len(shape) == 1:  # LayerNorm
            return 1.0, 0.2
        if key.endswith(
            (
                "resize_layers.0.weight",
                "resize_layers.1.weight",
                "act_postprocess.0.1.weight",
                "act_postprocess.1.1.weight",
            )
        ):
            fan_in = shape[0]  # transposed convolution with stride = kernel
        else:
            fan_in = int(np.prod(shape[1:]))
        return 0.0, gain * (3.0 / fan_in) ** 0.5
    return 0.0, 0.5  # tokens and position embeddings


def tensor(key, shape):
    centre, amp = rule(key, shape)
    u = unit(key, int(np.prod(shape))).reshape(shape)
    return (np.asarray(centre, np.float32) + np.float32(amp) * u).astype(np.float32)


def image(name, view, size):
    """uint8 (3, size, size): an 8x8 mosaic plus fine noise, from the name and view number."""
    key = f"image/{name}/{view}"
    cells = ((unit(key + "/coarse", 3 * 64) + 1) * 128).astype(np.int64).reshape(3, 8, 8)
    fine = ((unit(key + "/fine", 3 * size * size) + 1) * 128).astype(np.int64)
    coarse = cells.repeat(size // 8, axis=1).repeat(size // 8, axis=2)
    return ((3 * coarse + fine.reshape(3, size, size)) // 4).astype(np.uint8)


def intrinsics(view):
    """Normalised 3x3 matrix handed in for a view (read only by the -I variants)."""
    k = np.eye(3, dtype=np.float32)
    k[0, 0], k[1, 1], k[0, 2], k[1, 2] = 0.8 + 0.05 * view, 0.85 + 0.04 * view, 0.5, 0.5
    return k


def read_keys(path):
    """[(key, shape, alias or None)] from a keys_<variant>.txt file."""
    rows = []
    for line in Path(path).read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            key, shape, _, note = line.rstrip("\n").split("\t")
            alias = note.split("alias_of=")[1] if "alias_of=" in note else None
            rows.append((key, ast.literal_eval(shape), alias))
    return rows


def state_dict(path):
    """Tensors for every key; an alias shares storage with the key it names."""
    import torch

    out = {}
    for key, shape, alias in read_keys(path):
        out[key] = out[alias] if alias else torch.from_numpy(tensor(key, shape))
    return out


if __name__ == "__main__":
    import torch

    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("keys")
    ap.add_argument("out")
    ap.add_argument("--step", type=int, default=STEP)
    args = ap.parse_args()
    torch.save({"state_dict": state_dict(args.keys), "global_step": args.step}, args.out)
