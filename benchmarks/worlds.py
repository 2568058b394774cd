"""How good weights are on worlds never trained on, beside what the same network does before any training.

    python benchmarks/worlds.py [WEIGHTS] [--scenes 64]
    python benchmarks/worlds.py --views 2 3 4 6 --gaps 14 --output benchmarks/results/worlds-views.json

Two context views, 3, 9 and 14 frames apart, on worlds that turn by up to 40 degrees in a clip; the largest
gap also on calmer and on wilder worlds. SIFT + MAGSAC with the true focal length sees the same images. Poses
are those of the last context view in the frame of the first; further views lie between them.
"""

import itertools
import json
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from origin import commit

from nas3r import load
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.evaluation.baselines.two_view import SiftMatcher, essential_pose
from nas3r.evaluation.pose import PoseErrors, pose_errors, summarise
from nas3r.evaluation.provenance import Provenance, describe_weights
from nas3r.models import NAS3R
from nas3r.training import recipes
from nas3r.training.validate import HELD_OUT_SEED, HeldOutViews, measure

_TURN = (0.0, 40.0)  # degrees in a clip
_FURTHER = ((14, 0.0, 20.0), (14, 10.0, 60.0))  # frames apart; other turns
_COLUMNS = {
    "psnr": ".1f",
    "psnr_mean": ".1f",
    "psnr_nearest": ".1f",
    "rotation": ".1f",
    "rotation_identity": ".1f",
    "translation": ".0f",
    "auc20": ".3f",
    "focal": ".0f",
    "focal_guess": ".0f",
    "abs_rel": ".2f",
    "abs_rel_mean_map": ".2f",
    "depth_correlation": ".2f",
    "depth_correlation_image": ".2f",
}


@dataclass
class Benchmark:
    """Measures weights on generated worlds."""

    weights: tyro.conf.Positional[Path | None] = None
    """File; those that ship unless given."""
    scenes: int = 64
    """Worlds of each case."""
    views: tuple[int, ...] = (2,)
    """Numbers of context views."""
    gaps: tuple[int, ...] = (3, 9, 14)
    """Frames between the outer context views; worlds that turn otherwise only at the largest."""
    size: int | None = None
    """Side of the images in pixels; that which the weights were trained at unless given."""
    narrow_views: float = 1.0
    """As in the worlds' options: 1 draws fields of view evenly from 40 to 90 degrees."""
    output: Path = Path("benchmarks/results/worlds.json")
    """JSON file for the figures."""

    def run(self) -> None:
        """Prints a row for each case and network."""
        trained = load(self.weights, "cpu")
        torch.manual_seed(0)
        networks = {"untrained": NAS3R(trained.config), "trained": trained}
        rows = []
        print(" | ".join(["gap", "turn", "views", "network", *_COLUMNS]))
        for (gap, least, most), count in itertools.product(self._cases(), self.views):
            views = self._views(gap, (least, most), count, self.size or trained.config.image_size)
            case = {"gap": gap, "turn": [least, most], "views": count}
            sift = sift_auc(views)
            told = [str(gap), f"{least:g}-{most:g}", str(count)]
            print(" | ".join([*told, "SIFT, true focal", f"AUC@20 {sift:.3f}"]))
            for name, network in networks.items():
                figures = measure(network, views)
                rows.append({**case, "network": name, "sift_auc20": sift, **figures})
                print(" | ".join([*told, name, *_formatted(figures)]), flush=True)
        self.output.write_text(json.dumps(self._report(trained, rows), indent=1) + "\n")

    def _cases(self) -> list[tuple[int, float, float]]:
        usual = [(gap, *_TURN) for gap in self.gaps]
        return usual + [case for case in _FURTHER if self.views == (2,) and case[0] in self.gaps]

    def _views(self, gap: int, turn: tuple[float, float], count: int, size: int) -> HeldOutViews:
        worlds = recipes.get("tiny-synthetic").data.synthetic
        assert isinstance(worlds, SyntheticConfig)
        worlds = replace(worlds, rotation=turn, narrow_views=self.narrow_views)
        source = SyntheticScenes(HELD_OUT_SEED, worlds, length=self.scenes)
        return HeldOutViews.read(source, self.scenes, gap, count, size, size)

    def _report(self, model: NAS3R, rows: list[dict[str, Any]]) -> dict[str, Any]:
        name = None if self.weights is None else str(self.weights)
        command = shlex.join(["python", *sys.argv])
        origin = Provenance(command, "synthetic worlds, never trained on", describe_weights(name, model))
        return {
            **origin.to_dict(),
            "scenes": self.scenes,
            "size": self.size or model.config.image_size,
            "narrow_views": self.narrow_views,
            "commit": commit(),
            "rows": rows,
        }


def _formatted(figures: dict[str, float]) -> list[str]:
    return [format(figures[name], style) for name, style in _COLUMNS.items()]


def sift_auc(views: HeldOutViews) -> float:
    """Strict AUC@20 of first and last context view; pairs without an answer count as wrong."""
    errors = []
    height, width = views.images.shape[-2:]
    for images, poses, intrinsics in zip(
        views.context, views.cameras.world_from_camera, views.cameras.intrinsics, strict=True
    ):
        outer = [0, len(images) - 1]
        matches = SiftMatcher(images[outer]).matches(0, 1)
        found = essential_pose(matches, intrinsics[outer], height, width)
        both = torch.stack([torch.eye(4, dtype=found.dtype), found])
        errors.append(pose_errors(both, poses[outer].double(), pairs=[(0, 1)]))
    return summarise(PoseErrors.cat(errors), thresholds=(20.0,))["pose_auc@20"]


if __name__ == "__main__":
    tyro.cli(Benchmark, description=__doc__).run()
