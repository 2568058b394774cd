"""Cameras of whole scenes, from all of their photos, beside COLMAP's incremental and global mappers.

    python benchmarks/whole_scenes.py DATA/fox DATA/bonsai -o whole_scenes.json

Each scene is measured with its first photos, so many, and with all. The focal length is not told. Of each:
how many photos get a place, and the area under the recall curve of pose errors (larger of rotation and
direction) up to 5, 10 and 20 degrees over all pairs of photos; photos without a place count as wrong. COLMAP
sees the same photos at the same size, compares each with every other, and shares one camera.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from origin import origin

import nas3r
from nas3r.adjustment import NotAdjustableError
from nas3r.data.posed_sources import open_posed
from nas3r.evaluation.baselines.mapping import MAPPERS, Mapper, map_photos
from nas3r.evaluation.pose import auc, pose_errors
from nas3r.models import NAS3R
from nas3r.reconstruction.views import SizeRule, working_size
from nas3r.reconstruction.whole import PictureNetwork, network_start
from nas3r.scenes import map_scene

MULTIPLE = 8  # of pixels, of the sides of photos


@dataclass
class Benchmark:
    """Measures the cameras of whole posed scenes."""

    scenes: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of posed scenes."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("whole_scenes.json")
    """Results; what is there is not measured again."""
    colmap: bool = True
    """Whether COLMAP is measured beside."""
    counts: tuple[int, ...] = (16, 32, 64)
    """Numbers of photos that are measured beside all."""
    most: int = 150
    """Photos of a scene, at most: of more, every second, third, ..."""
    table: bool = False
    """Print the results that are there as a table, and measure nothing."""

    def run(self) -> None:
        """Measures, and writes after every scene and number of photos."""
        if self.table:
            print("\n".join(table(json.loads(self.output.read_text())["rows"])))
            return
        model = nas3r.load(device="cpu")
        rows = json.loads(self.output.read_text())["rows"] if self.output.exists() else []
        for path in self.scenes:
            scene = open_posed(path)[0]
            frames = list(range(0, len(scene), -(-len(scene) // self.most)))
            for count in [*(n for n in self.counts if n < len(frames)), len(frames)]:
                row = next((r for r in rows if (r["scene"], r["photos"]) == (path.name, count)), None)
                if row is None:
                    row = {"scene": path.name, "photos": count, "all": count == len(frames)}
                    rows.append(row)
                for mapper in (None, *(MAPPERS if self.colmap else ())):
                    who = mapper or "nas3r"
                    if who not in row:
                        row[who] = measured(mapper, model, scene, frames[:count])
                        print(json.dumps(row), flush=True)
                        self._write(model, rows)

    def _write(self, model: NAS3R, rows: list[dict[str, Any]]) -> None:
        about = origin(self.scenes, model)
        self.output.write_text(json.dumps({"origin": about, "rows": rows}, indent=1) + "\n")


def measured(mapper: Mapper | None, model: NAS3R, scene: Any, frames: list[int]) -> dict[str, Any]:
    """Figures of one of COLMAP's mappers, or of this package, on some photos."""
    width, height = (side // MULTIPLE * MULTIPLE for side in scene.full_size)
    views = scene.read(frames, height, width)
    true = views.cameras.world_from_camera[0].double()
    start, cpu = time.perf_counter(), time.process_time()
    if mapper is None:
        poses, matrices = ours(model, views.images)
    else:
        poses, matrices = map_photos(views.images, mapper)
    placed = torch.isfinite(poses[:, 0, 0])
    errors = pose_errors(poses, true).maximum
    focal = matrices[placed, 0, 0] / views.cameras.intrinsics[0, placed, 0, 0] - 1
    return {
        "placed": int(placed.sum()),
        "auc": [round(100 * x, 1) for x in auc(errors, (5, 10, 20))],
        "focal_off": round(float(100 * focal.abs().median()), 2) if placed.any() else None,
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def ours(model: NAS3R, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Poses and normalised intrinsics of this package; NaN for photos without a place."""
    height, width = images.shape[-2:]
    small = working_size([(width, height)], SizeRule(model.config.image_size, model.config.patch_size))
    seen = torch.nn.functional.interpolate(images, size=small[::-1], mode="area")
    photos = list((images * 255).round().byte().permute(0, 2, 3, 1).numpy())
    poses = torch.full((len(images), 4, 4), torch.nan, dtype=torch.float64)
    matrices = torch.full((len(images), 3, 3), torch.nan, dtype=torch.float64)
    try:
        part = map_scene(photos, network_start(PictureNetwork(model, seen), None)).parts[0]
    except NotAdjustableError:
        return poses, matrices
    poses[part.views] = part.cameras.world_from_camera[0].double()
    matrices[part.views] = part.cameras.intrinsics[0].double()
    return poses, matrices


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a table, a row for each scene and number of photos."""
    names = {"nas3r": "nas3r", "incremental": "COLMAP, incremental", "global": "COLMAP, global"}
    lines = [f"| scene, photos | {' | '.join(names.values())} |", "|---|---|---|---|"]
    for row in rows:
        cells = []
        for name in names:
            figures = row.get(name)
            cells.append(
                ""
                if figures is None
                else f"{figures['placed']}: {' / '.join(f'{x:.0f}' for x in figures['auc'])}"
            )
        lines.append(f"| {row['scene']}, {row['photos']} | {' | '.join(cells)} |")
    whole = [row for row in rows if row["all"]]
    means = [
        " / ".join(f"{x:.0f}" for x in np.mean([r[n]["auc"] for r in whole], axis=0))
        if all(n in r for r in whole)
        else ""
        for n in names
    ]
    return [*lines, f"| mean of scenes, all photos | {' | '.join(means)} |"]


if __name__ == "__main__":
    tyro.cli(Benchmark).run()
