"""Poses of two real views at 128 px: what matching is judged by, on scenes to choose on and scenes to report.

    python benchmarks/pairs.py DATA -o pairs.json
    python benchmarks/pairs.py DATA -o pairs.json --weights runs/matching/model.safetensors --pairs 16

The pairs are those of `nas3r evaluate pose`: 64 of each scene, 16 of each class of overlap, or fewer for a
quick look. Area under the recall curve of pose errors (larger of rotation and direction) up to 5, 10 and 20
degrees, with the true focal length and with none, and how far the focal length is off then. `--swap` says
where a fault lies: it adds XFeat + LighterGlue, their matches in our solver, and our matches in MAGSAC.
Whoever chooses by these figures looks at the choosing half alone.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from origin import commit
from torch import Tensor

import nas3r
from nas3r.data.posed import PosedScene, PosedViews
from nas3r.data.posed_sources import open_posed
from nas3r.evaluation.baselines.learnt import XFeatMatcher
from nas3r.evaluation.baselines.two_view import essential_pose
from nas3r.evaluation.inference import Inference
from nas3r.evaluation.planning import Selection
from nas3r.evaluation.pose import summarise
from nas3r.evaluation.protocols import ViewSet
from nas3r.evaluation.provenance import Provenance, describe_weights
from nas3r.evaluation.runner import evaluate
from nas3r.evaluation.tasks.pose_baselines import Estimate
from nas3r.evaluation.tasks.pose_tables import methods, pooled
from nas3r.evaluation.tasks.poses import Poses
from nas3r.geometry import make_pose
from nas3r.matching import Matches, ViewMatcher
from nas3r.solver.correspondences import on_rays
from nas3r.solver.two_view import refine_relative_pose, search_relative_pose

SIZE = 128  # pixels
CLASSES = 4  # of overlap
THRESHOLDS = (5, 10, 20)  # degrees
LEAST_WEIGHT = 0.1  # of our matches in MAGSAC, which weighs none
LEAST_MATCHES = 8  # for our solver
SIGMA = 0.5  # pixels, of the others' matches in our solver
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
    swap: bool = False
    """Also the matches of XFeat + LighterGlue, theirs and ours in the solver and in MAGSAC."""
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
            key = {"scene": scene, "half": self.half, "pairs": self.pairs, "swap": self.swap}
            key["weights"] = weights["sha256"]
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
        baselines = ("xfeat-lighterglue",) if self.swap else ()
        kind = Swapped if self.swap else Poses
        task = kind(Inference(model), SIZE, baselines=baselines, pnp=False)
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
        provenance = Provenance(self._command(), ", ".join(HALVES[self.half]), weights)
        about = provenance.to_dict() | {"commit": commit()}
        self.output.write_text(json.dumps({"origin": about, "rows": rows}, indent=1) + "\n")


class Swapped(Poses):
    """Also our matches in MAGSAC, and those of XFeat + LighterGlue in our solver."""

    def _estimates(
        self,
        scene: PosedScene,
        views: PosedViews,
        context: PosedViews,
        view_set: ViewSet,
        pairs: list[tuple[int, int]],
    ) -> list[tuple[str, Estimate]]:
        assert self.inference is not None
        matcher = self.inference.model.poses.view_matcher
        assert matcher is not None
        intrinsics = views.cameras.intrinsics[0]
        ours = essential_pose(our_matches(matcher, views.images), intrinsics, SIZE, SIZE)
        theirs = solved_pose(XFeatMatcher(views.images, enlarged=4).matches(1, 0), intrinsics)
        return [
            *super()._estimates(scene, views, context, view_set, pairs),
            ("ours in MAGSAC, true K", Estimate(ours[None])),
            ("XFeat + LighterGlue in our solver, true K", Estimate(theirs[None])),
        ]


@torch.no_grad()
def our_matches(matcher: ViewMatcher, images: Float[Tensor, "2 3 h w"]) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions in both images of our matches that count."""
    features = matcher.features(images[None])
    matches = matcher.match(features, features, torch.tensor([[1, 0]])).views(slice(1))
    count = (matches.weights * matches.support)[0, 0] > LEAST_WEIGHT
    first, second = (SIZE * xy[0, 0, count].double().numpy() for xy in (matches.places, matches.found))
    return first, second


def solved_pose(
    matches: tuple[np.ndarray, np.ndarray], intrinsics: Float[Tensor, "2 3 3"]
) -> Float[Tensor, "4 4"]:
    """Pose of the second camera in the frame of the first, from positions in the second and the first."""
    places, found = (torch.from_numpy(xy)[None, None].float() / SIZE for xy in matches)
    if places.shape[2] < LEAST_MATCHES:
        return torch.full((4, 4), torch.nan)
    ones = torch.ones(places.shape[:3])
    covariances = (SIGMA / SIZE) ** 2 * torch.eye(2).expand(*places.shape, 2)
    rays = on_rays(
        Matches(places, found, covariances, ones, ones), intrinsics[None, 1:], intrinsics[None, :1]
    )
    pose = search_relative_pose(rays, hypotheses=128, iterations=3, few=None)
    pose = refine_relative_pose(rays, pose, iterations=5)
    return make_pose(pose.rotation, pose.direction)[0, 0]


def means(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each method: AUC at 5, 10 and 20 degrees, means over scenes."""
    names = [name for name, value in rows[0].items() if isinstance(value, list)]
    figures = {name: np.mean([row[name] for row in rows], axis=0) for name in names}
    return [f"{name}: {' / '.join(f'{x:.3f}' for x in figures[name])}" for name in names]


if __name__ == "__main__":
    tyro.cli(Benchmark).run()
