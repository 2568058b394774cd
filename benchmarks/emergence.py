"""How geometry emerges in a run: its validations as curves, with the trivial answers as lines.

    python benchmarks/emergence.py runs/paper [runs/other ...] -o emergence.png
    python benchmarks/emergence.py runs/paper --report --scenes 256

Curves are of the worlds that a run is watched on. `--report` measures the newest weights on other worlds,
which nothing was chosen by, two context views 14 frames apart, beside SIFT with the true focal length.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from worlds import sift_auc

from nas3r import load
from nas3r.data.synthetic import SyntheticScenes
from nas3r.training import recipes
from nas3r.training.log import read_log
from nas3r.training.state import CheckpointFolder
from nas3r.training.validate import HELD_OUT_SEED, HeldOutViews, measure

REPORT_SEED = HELD_OUT_SEED + 1  # worlds of the report: never looked at while something is chosen
_GAP = 14

# Of each plot: the figure, the trivial answer that is its line (or a number), and the label.
PLOTS: tuple[tuple[str, str | float, str], ...] = (
    ("rotation", "rotation_identity", "rotation, median, degrees (line: identity)"),
    ("translation", 90.0, "direction of translation, median, degrees (line: no answer)"),
    ("auc20", "auc20_constant", "AUC@20, strict (line: best constant answer)"),
    ("depth_correlation_image", 0.0, "depth: correlation, mean map removed (line: mean map)"),
    ("abs_rel", "abs_rel_mean_map", "depth: abs rel (line: mean map)"),
    ("psnr", "psnr_mean", "renderings, PSNR in dB (line: mean of contexts)"),
    ("focal", "focal_guess", "focal length, median error in percent (line: guess)"),
)


@dataclass
class Benchmark:
    """Draws the curves of runs, or measures their newest weights on worlds kept for reports."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("emergence.png")
    """Picture of the curves."""
    report: bool = False
    """Measure instead of drawing."""
    scenes: int = 256
    """Worlds of the report."""
    recipe: str = "tiny-paper"
    """Whose footage the report is on."""

    def run(self) -> None:
        """Draws or measures."""
        if not self.report:
            draw({run.name: validations(run) for run in self.runs}, self.output)
            print(self.output)
            return
        data = recipes.get(self.recipe).data
        source = SyntheticScenes(REPORT_SEED, data.synthetic, length=self.scenes)
        views = HeldOutViews.read(source, self.scenes, _GAP, 2, data.height, data.width)
        sift = sift_auc(views)
        for run in self.runs:
            samples, weights = newest_weights(run)
            figures = measure(load(weights, device="cpu"), views)
            print(json.dumps({"run": run.name, "samples": samples, "auc20_sift": sift, **figures}))


def validations(run: Path) -> list[dict[str, Any]]:
    """Figures of every validation of a run, with the number of samples seen.

    Raises:
        ValueError: If the run has none.
    """
    batch = json.loads((run / "config.json").read_text())["data"]["batch_size"]
    found = {e["step"]: e for e in read_log(run) if e["kind"] == "validation"}
    if not found:
        raise ValueError(f"{run}: expected a run with validations in its log, found none")
    return [{"samples": step * batch, **found[step]} for step in sorted(found)]


def draw(curves: dict[str, list[dict[str, Any]]], output: Path) -> None:
    """A plot of every figure against samples; the trivial answers are those of the first run's last line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(18, 8), constrained_layout=True)
    trivial = next(iter(curves.values()))[-1]
    for axis, (name, line, label) in zip(axes.flat, PLOTS):
        for run, rows in curves.items():
            axis.plot([r["samples"] for r in rows], [r[name] for r in rows], label=run)
        axis.axhline(trivial[line] if isinstance(line, str) else line, color="grey", linestyle="--")
        axis.set_title(label, fontsize=9)
        axis.set_xlabel("samples")
    for axis in axes.flat[len(PLOTS) :]:
        axis.axis("off")
    axes.flat[0].legend()
    figure.savefig(output, dpi=100)
    plt.close(figure)


def newest_weights(run: Path) -> tuple[int, Path]:
    """Samples seen by the newest checkpoint, and its weights, averaged where the run keeps an average.

    Raises:
        ValueError: If there is none.
    """
    checkpoint = CheckpointFolder(run, keep=0).newest_valid()
    if checkpoint is None:
        raise ValueError(f"{run}: expected a run with a checkpoint, found none")
    batch = json.loads((run / "config.json").read_text())["data"]["batch_size"]
    return checkpoint.training_state()["step"] * batch, checkpoint.average or checkpoint.weights


if __name__ == "__main__":
    tyro.cli(Benchmark, description=__doc__).run()
