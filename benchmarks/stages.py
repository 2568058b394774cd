"""What each stage of `nas3r reconstruct` takes, by number and size of photos: `--dry-run` computes from it.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/stages.py PHOTOS -o benchmarks/results/stages.json

Seconds are those of the processor, of one thread, so that other work on the machine does not count; budgets
of time are counted in them too. Memory is the peak of a process of its own. Finished cases are not measured
again. At the end the constants of `nas3r/reconstruction/stages.py` are fitted, by least squares of relative
errors with no constant below zero, and printed.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from origin import origin
from PIL import Image

import nas3r
from nas3r import ReconstructOptions
from nas3r.io.images import list_images
from nas3r.reconstruction import dense, pipeline, stages, storage
from nas3r.reconstruction.storage import DEFAULT_EXPORTS
from nas3r.refine import budget

CASES = [(3, 640), (8, 640), (5, 320), (3, 1280), (12, 320), (12, 480)]  # views, longer side in pixels


@dataclass
class Benchmark:
    """Measures stages, each case in a process of its own, and fits what they cost."""

    photos: tyro.conf.Positional[Path]
    """Folder of photos of one scene."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("stages.json")
    """Results."""
    case: tuple[int, int] | None = None
    """Views and longer side: only measure this one, and print it."""

    def run(self) -> None:
        """Measures and fits."""
        if self.case is not None:
            print(json.dumps(measured(self.photos, *self.case)))
            return
        rows = json.loads(self.output.read_text())["cases"] if self.output.exists() else []
        for views, side in CASES:
            if any((row["views"], row["side"]) == (views, side) for row in rows):
                continue
            words = [sys.executable, __file__, str(self.photos), "--case", str(views), str(side)]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
            self._write(rows)
        for stage, units in UNITS.items():
            chosen = [row for row in rows if stage in row["seconds"]]
            design = np.array([units(row) for row in chosen])
            target = np.array([row["seconds"][stage] for row in chosen])
            constants = fitted(design, target)
            print(stage, [f"{c:.2e}" for c in constants])
            for row, guess, true in zip(chosen, design @ constants, target, strict=True):
                print(f"  {row['views']} of {row['side']}: {true:.1f} s measured, {guess:.1f} s fitted")
        design = np.array([[1.0, row["views"] * row["dense_megapixels"] * 1e6] for row in rows])
        print("bytes", [f"{c:.2e}" for c in fitted(design, np.array([row["bytes"] for row in rows]))])

    def _write(self, rows: list[dict[str, Any]]) -> None:
        document = {**origin([self.photos], nas3r.load(None, "cpu")), "cases": rows}
        self.output.write_text(json.dumps(document, indent=1) + "\n")


UNITS = {
    "adjust cameras": lambda row: stages.adjusting_units(row["views"], row["full_megapixels"]),
    "tie pictures together": lambda row: stages.tying_units(row["views"], row["full_megapixels"]),
    "depth": lambda row: stages.depth_units(row["views"], row["dense_megapixels"]),
    "fitting": lambda row: stages.fitting_units(row["steps"], row["dense_megapixels"]),
    "rest": lambda row: stages.rest_units(row["views"], row["dense_megapixels"]),
}


def measured(photos: Path, views: int, side: int) -> dict[str, Any]:
    """Seconds of the processor by stage, and the peak of memory, of one reconstruction and its files."""
    torch.set_num_threads(1)
    clock = SimpleNamespace(perf_counter=time.process_time, monotonic=time.process_time)
    for module in (pipeline, dense, storage, budget):
        module.time = clock  # pyright: ignore[reportAttributeAccessIssue]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i:03d}.jpg" for i in range(views)]
        for file, photo in zip(files, list_images(photos), strict=False):
            image = Image.open(photo)
            scale = side / max(image.size)
            image.resize((round(image.width * scale), round(image.height * scale))).save(file, quality=95)
        options = ReconstructOptions(views=views, held_out=0)
        result = nas3r.reconstruct(files, options)
        written = result.write(_made(Path(folder) / "out"), DEFAULT_EXPORTS)
    record = written.record
    assert record.dense is not None
    assert record.adjusted is not None
    seconds = {name: record.seconds[name] for name in stages.CAMERAS if name in record.seconds}
    seconds["depth"] = record.dense["seconds"]["depth"] + record.dense["seconds"]["merging"]
    seconds["fitting"] = record.dense["seconds"]["fitting"]
    rest = ("load weights", "read pictures", "check")
    seconds["rest"] = sum(t for name, t in record.seconds.items() if name in rest or name.startswith("write"))
    return {
        "views": views,
        "side": side,
        "full_megapixels": np.prod(record.adjusted["size"]) / 1e6,
        "dense_megapixels": np.prod(record.dense["size"]) / 1e6,
        "steps": record.dense["steps"],
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "all_seconds": record.seconds,
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def fitted(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Constants that are not below zero, of the least squares of relative errors."""
    from scipy.optimize import nnls

    return nnls(design / target[:, None], np.ones(len(target)))[0]


if __name__ == "__main__":
    tyro.cli(Benchmark).run()
