"""How long a pass of the network takes, by number and size of views: what `--dry-run` is computed from.

    OMP_NUM_THREADS=1 python benchmarks/estimate.py

Fits, by least squares on relative errors, seconds per parameter and token, per token of a matched pair and
per pair of its tokens (`nas3r/reconstruction/estimate.py`), and prints them with measured and fitted times.
"""

import argparse
import time

import numpy as np
import torch

from nas3r.models import infer, load

CASES = [(2, 64), (4, 64), (8, 64), (2, 128), (4, 128), (8, 128), (2, 256), (3, 256)]  # views, side in pixels


def seconds(model: torch.nn.Module, views: int, side: int) -> float:
    """Of the second pass; the first compiles."""
    images = torch.rand(1, views, 3, side, side)
    with torch.no_grad():
        infer(model, images)
        start = time.perf_counter()
        infer(model, images)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", help="default: those that ship")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load(arguments.weights, "cpu")
    parameters = sum(p.numel() for p in model.parameters())
    rows, measured = [], []
    for views, side in CASES:
        tokens, pairs = (side // model.config.patch_size) ** 2, views * (views - 1) / 2
        rows.append([views * tokens * parameters, pairs * tokens, pairs * tokens**2])
        measured.append(seconds(model, views, side))
    design, target = np.array(rows), np.array(measured)
    weighted = design / target[:, None]
    scale = np.linalg.norm(weighted, axis=0)
    fitted = np.linalg.lstsq(weighted / scale, np.ones(len(target)), rcond=None)[0] / scale
    print(
        "per parameter and token {:.2e}, per token of a pair {:.2e}, per pair of tokens {:.2e}".format(
            *fitted
        )
    )
    for (views, side), true, guess in zip(CASES, target, design @ fitted, strict=True):
        print(f"{views} views of {side} x {side}: {true:.2f} s measured, {guess:.2f} s fitted")


if __name__ == "__main__":
    main()
