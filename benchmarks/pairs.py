"""Poses of two real views at 128 px: what matching is judged by, on scenes to choose on and scenes to report.

    python benchmarks/pairs.py DATA -o pairs.json
    python benchmarks/pairs.py DATA -o pairs.json --weights runs/matching/model.safetensors --pairs 16

The pairs are those of `nas3r evaluate pose`: 64 of each scene, 16 of each class of overlap, or fewer for a
quick look. Area under the recall curve of pose errors (larger of rotation and direction) up to 5, 10 and 20
degrees, with the true focal length and with none, and how far the focal length is off then. Whoever chooses
by these figures looks at the choosing half alone.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

import nas3r
from nas3r.data.posed_sources import open_posed
from nas3r.evaluation.inference import Inference
from nas3r.evaluation.planning import Selection
from nas3r.evaluation.pose import summarise
from nas3r.evaluation.provenance import Provenance, describe_weights
from nas3r.evaluation.runner import evaluate
from nas3r.evaluation.tasks.pose_tables import methods, pooled
from nas3r.evaluation.tasks.poses import Poses

SIZE = 128  # pixels
CLASSES = 4  # of overlap
THRESHOLDS = (5, 10, 20)  # degrees
HALVES = {
    "choosing": ("fox", "7scenes_redkitchen"),
    "reporting": ("phone_eunseon02", "bonsai_mipnerf360"),
}


@dataclass
class Benchmark:
    """Measures poses of pairs of real views."""

    data: tyro.conf.Positional[Path]
    """Folder that holds the folders of the scenes."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("pairs.json")
    """Results; a scene that was measured with the same weights is not measured again."""
    weights: str | None = None
    """Weights file; default: the weights that ship."""
    half: Literal["choosing", "reporting"] = "choosing"
    """Scenes on which settings are chosen, or those whose figures are reported."""
    pairs: int = 64
    """Of each scene; a multiple of four."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> None:
        """Measures, writes after every scene, and prints the means."""
        torch.set_num_threads(self.threads)
        model = nas3r.load(self.weights, device="cpu")
        weights = describe_weights(self.weights, model)
        rows = json.loads(self.output.read_text())["rows"] if self.output.exists() else []
        found = []
        for scene in HALVES[self.half]:
            key = {"scene": scene, "half": self.half, "pairs": self.pairs, "weights": weights["sha256"]}
            row = next((r for r in rows if r | key == r), None)
            if row is None:
                row = {**key, "name": weights["name"], **self._measured(model, scene, weights)}
                rows.append(row)
                self._write(rows, weights)
            found.append(row)
            print(json.dumps(row), flush=True)
        print("\n".join(means(found)))

    def _measured(self, model: nas3r.NAS3R, scene: str, weights: dict[str, str]) -> dict[str, Any]:
        """Figures of every method on one scene."""
        task = Poses(Inference(model), SIZE, baselines=(), pnp=False)
        selection = Selection(sets_per_class=max(1, self.pairs // CLASSES))
        provenance = Provenance(self._command(), scene, weights)
        with tempfile.TemporaryDirectory() as folder:
            source = open_posed(self.data / scene)
            results = evaluate(task, source, selection, provenance, Path(folder), pictures=0)
        records = results["records"]
        row: dict[str, Any] = {"measured": len(records)}
        for method in methods(records):
            summary = summarise(pooled(records, method), THRESHOLDS)
            row[method] = [round(summary[f"pose_auc@{t}"], 3) for t in THRESHOLDS]
            if "focal_median" in summary:
                row[f"{method}, focal %"] = round(summary["focal_median"], 1)
        return row

    def _command(self) -> str:
        return f"python benchmarks/pairs.py DATA --half {self.half} --pairs {self.pairs}"

    def _write(self, rows: list[dict[str, Any]], weights: dict[str, str]) -> None:
        origin = Provenance(self._command(), ", ".join(HALVES[self.half]), weights)
        self.output.write_text(json.dumps({"origin": origin.to_dict(), "rows": rows}, indent=1) + "\n")


def means(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each method: AUC at 5, 10 and 20 degrees, means over scenes."""
    names = [name for name, value in rows[0].items() if isinstance(value, list)]
    figures = {name: np.mean([row[name] for row in rows], axis=0) for name in names}
    return [f"{name}: {' / '.join(f'{x:.3f}' for x in figures[name])}" for name in names]


if __name__ == "__main__":
    tyro.cli(Benchmark).run()
