"""Depth of rectified stereo: as the network says after comparing views, and dense at full size.

    python benchmarks/stereo.py DATA/middlebury_2001_2006 -o stereo.json

Of the left image: mean of |p - t| / t (abs rel) after the least-squares affine map of inverse depth, over
pixels whose truth is known; and the same over those that dense depth is sure of. Both photos go through
`nas3r.reconstruct`, which knows nothing of rectified pairs.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from origin import origin

import nas3r
from nas3r import ReconstructOptions
from nas3r.data.posed import PosedViews
from nas3r.data.posed_sources import open_posed
from nas3r.evaluation.depth import depth_errors
from nas3r.gaussians import Gaussians
from nas3r.reconstruction import dense
from nas3r.reconstruction.options import Quality
from nas3r.reconstruction.scene import Scene
from nas3r.refine import FitResult

SIDE = 640  # pixels of the longer side, at most
MULTIPLE = 8  # of pixels, of the sides
SURE = 0.5


@dataclass
class Benchmark:
    """Measures depth of stereo pairs."""

    data: tyro.conf.Positional[Path]
    """Folder of stereo pairs."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("stereo.json")
    """Results."""
    every: int = 1
    """Every how many pairs one is measured."""
    rows: tuple[dict[str, Any], ...] = ()

    def run(self) -> None:
        """Measures, and writes after every pair."""
        model = nas3r.load(device="cpu")
        about = origin([self.data], model)
        source = open_posed(self.data)
        for number in range(0, len(source), self.every):
            row = measured(model, source[number])
            self.rows += (row,)
            print(json.dumps(row), flush=True)
            means = {
                name: round(float(np.mean([r[name] for r in self.rows if name in r])), 3)
                for name in ("compared", "dense", "dense_where_sure", "sure", "adjusted")
                if any(name in r for r in self.rows)
            }
            self.output.write_text(
                json.dumps({"origin": about, "means": means, "rows": self.rows}, indent=1) + "\n"
            )


def measured(model: Any, pair: Any) -> dict[str, Any]:
    """Figures of one pair."""
    shrink = min(1.0, SIDE / max(pair.full_size))
    width, height = (int(side * shrink) // MULTIPLE * MULTIPLE for side in pair.full_size)
    views = pair.read([0, 1], height, width)
    assert views.depth is not None
    photos = list((views.images * 255).round().byte().permute(0, 2, 3, 1).numpy())
    row: dict[str, Any] = {"scene": pair.name}
    qualities: dict[str, Quality] = {"compared": "draft", "dense": "best"}
    for name, quality in qualities.items():
        options = ReconstructOptions(views=2, held_out=0, quality=quality)
        with mock.patch.object(dense, "fit", unfitted):
            scene = nas3r.reconstruct(photos, options, weights=model)
        row[name] = error(scene, views, torch.ones_like(scene.depth[0]))
    row["adjusted"] = (scene.record.adjusted or {}).get("kept", False)
    if scene.confidence is not None:
        sure = scene.confidence[0] > SURE
        row["sure"] = round(float(sure.float().mean()), 3)
        row["dense_where_sure"] = error(scene, views, sure.float())
    return row


def unfitted(gaussians: Gaussians, *_: Any, **__: Any) -> FitResult:
    """In place of fitting, which leaves depth as it is."""
    return FitResult(gaussians, 0, 0.0, None)


def error(scene: Scene, views: PosedViews, weight: torch.Tensor) -> float:
    """Of the left photo, where the weight is more than nothing."""
    assert views.depth is not None
    truth = views.depth[0]
    left, top, right, bottom = (round(x) for x in scene.views[0].resize.box)
    truth = truth[top:bottom, left:right]
    maps = torch.stack([scene.depth[0], weight])[None]
    depth, used = F.interpolate(maps, size=truth.shape, mode="nearest")[0]
    known = torch.where(used > 0, truth, torch.zeros_like(truth))
    return round(depth_errors(depth, known, known_up_to=views.depth_known_up_to)["disparity/abs_rel"], 4)


if __name__ == "__main__":
    tyro.cli(Benchmark).run()
