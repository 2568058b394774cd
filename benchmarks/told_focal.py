"""How far focal lengths that matches say are from the truth, and how wrong ones explain the matches.

    OMP_NUM_THREADS=1 python benchmarks/told_focal.py DATA_FOLDER --out FILE [--stretches 6]

For stretches of posed scenes the solver is run without a focal length, with the true one, and with wrong
ones. Scenes are kept apart in two halves: thresholds are chosen on one, and reported on the other.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from origin import origin

from nas3r.data.posed import PosedScene, PosedViews
from nas3r.data.posed_sources import open_posed
from nas3r.models import load
from nas3r.reconstruction.focal_check import CLEARLY_WORSE, contradicted, explained

CHOOSING = ("fox", "bonsai_mipnerf360", "office_antoniocarevic", "synthetic:11:8")
REPORTING = ("phone_eunseon02", "7scenes_redkitchen", "toy_jianzhengjie", "synthetic:12:8")
FACTORS = (1 / 6.3, 1 / 2, 1.0, 2.0, 6.3)
SIZE = 128
VIEWS = (3, 4, 6)


def stretches(scene: PosedScene, count: int) -> Iterator[PosedViews]:
    """Neighbouring views, more and less far apart, from all over the scene; their number varies too."""
    random = np.random.default_rng(0)
    for i in range(count):
        views = VIEWS[i % len(VIEWS)]
        step = int(random.integers(1, 4))
        span = (views - 1) * step
        if span < len(scene):
            first = int(random.integers(0, len(scene) - span))
            yield scene.read(list(range(first, first + span + 1, step)), SIZE, SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--stretches", type=int, default=6, help="of each scene")
    parser.add_argument("--weights")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load(arguments.weights, "cpu")
    matcher = model.poses.view_matcher
    assert matcher is not None, "weights whose poses are solved for"
    rows = []
    for half, names in (("choosing", CHOOSING), ("reporting", REPORTING)):
        for name in names:
            source = open_posed(name if name.startswith("synthetic") else arguments.data / name)
            each = 1 if name.startswith("synthetic") else arguments.stretches
            for index in range(len(source)):
                for views in stretches(source[index], each):
                    true = views.cameras.intrinsics
                    row: dict = {"half": half, "scene": name, "views": len(views.images), "told": {}}
                    images = views.images[None]
                    untold = explained(matcher, images, None)
                    row["untold"] = round(untold.focal / float(true[..., 0, 0].log().mean().exp()), 4)
                    row["cost"] = round(untold.cost, 5)
                    for factor in FACTORS:
                        told = true.clone()
                        told[..., [0, 1], [0, 1]] *= factor
                        row["told"][f"{factor:.2f}"] = round(explained(matcher, images, told).cost, 5)
                    rows.append(row)
                    print(row, flush=True)
    for half in ("choosing", "reporting"):
        print(half, *summary([row for row in rows if row["half"] == half]), sep="\n")
    about = origin([arguments.data], model, arguments.weights)
    arguments.out.write_text(json.dumps({"origin": about, "rows": rows}, indent=1) + "\n")


def summary(rows: Sequence[dict]) -> Iterator[str]:
    """How far off matches are, and how often each wrong factor is questioned and overruled."""
    errors = sorted(abs(np.log(row["untold"])) for row in rows)
    off = [np.expm1(np.quantile(errors, q)) for q in (0.5, 0.9, 1.0)]
    quantiles = ", ".join(f"{value:.0%}" for value in off)
    yield f"{len(rows)} stretches; untold off by {quantiles} (median, nine of ten, all)"
    for factor in map("{:.2f}".format, FACTORS):
        ratios = [
            row["told"][factor] / row["cost"]
            for row in rows
            if contradicted(float(factor) / row["untold"], row["told"][factor] / row["cost"])
        ]
        overruled = sum(ratio >= CLEARLY_WORSE for ratio in ratios)
        yield f"told {factor} times the truth: {len(ratios)} questioned, {overruled} of them overruled"


if __name__ == "__main__":
    main()
