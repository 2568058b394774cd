"""Cameras of real scenes before and after they are adjusted to points at full size, beside COLMAP's.

    python benchmarks/cameras.py DATA/fox DATA/bonsai -o cameras.json

Each scene is cut into stretches of neighbouring photos. The focal length is not told. Of each stretch: area
under the recall curve of pose errors (larger of rotation and direction, all pairs of views) up to 5, 10 and
20 degrees, and how far the focal length is off. COLMAP's incremental mapper sees the same photos at the same
size.
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
from nas3r import ReconstructOptions
from nas3r.data.posed_sources import open_posed
from nas3r.evaluation.baselines.mapping import map_incrementally
from nas3r.evaluation.pose import auc, pose_errors

MOST_STEP = 10  # frames between neighbours
MULTIPLE = 8  # of pixels, of the sides of photos


@dataclass
class Benchmark:
    """Measures cameras on stretches of posed scenes."""

    scenes: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of posed scenes."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("cameras.json")
    """Results; finished stretches are not measured again."""
    views: int = 8
    """Photos of a stretch."""
    stretches: int = 3
    """Of a scene, at most."""
    colmap: bool = True
    """Whether COLMAP is measured beside."""
    table: bool = False
    """Print the results that are there as a table, and measure nothing."""

    def run(self) -> None:
        """Measures, and writes after every stretch."""
        if self.table:
            print("\n".join(table(json.loads(self.output.read_text()))))
            return
        rows = json.loads(self.output.read_text())["rows"] if self.output.exists() else []
        done = {(row["scene"], tuple(row["frames"])) for row in rows}
        for path in self.scenes:
            scene = open_posed(path)[0]
            for frames in stretches(len(scene), self.views, self.stretches):
                if (path.name, tuple(frames)) in done:
                    continue
                row = {"scene": path.name, "frames": frames, **measured(scene, frames, self.colmap)}
                rows.append(row)
                print(json.dumps(row), flush=True)
                self._write(rows)
        self._write(rows)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        about = origin(self.scenes, nas3r.load(device="cpu"))
        means = {
            name: np.mean([row[name] for row in rows if row.get(name) is not None], axis=0).round(1).tolist()
            for name in ("draft", "standard", "colmap")
            if any(row.get(name) is not None for row in rows)
        }
        document = {"origin": about, "means": means, "rows": rows}
        self.output.write_text(json.dumps(document, indent=1) + "\n")


def table(document: dict[str, Any]) -> list[str]:
    """Lines of a table, a row for each scene: means over its stretches."""
    lines = [
        "| scene | network alone | adjusted | COLMAP | focal length off: network, adjusted, COLMAP |",
        "|---|---|---|---|---|",
    ]
    for scene in dict.fromkeys(row["scene"] for row in document["rows"]):
        rows = [row for row in document["rows"] if row["scene"] == scene]
        areas = [
            " / ".join(f"{x:.0f}" for x in np.mean([row[name] for row in rows], axis=0))
            for name in ("draft", "standard", "colmap")
        ]
        focal = [
            f"{np.mean([row[f'{n}_focal'] for row in rows]):.1f}" for n in ("draft", "standard", "colmap")
        ]
        lines.append(f"| {scene} | {' | '.join(areas)} | {', '.join(focal)} % |")
    means = (" / ".join(f"{x:.0f}" for x in document["means"][n]) for n in ("draft", "standard", "colmap"))
    return [*lines, f"| mean of stretches | {' | '.join(means)} | |"]


def stretches(count: int, views: int, most: int) -> list[list[int]]:
    """Frames of stretches that are spread over a scene, with the widest steps that leave them apart."""
    step = int(np.clip(count // (views * most), 1, MOST_STEP))
    length = (views - 1) * step + 1
    fit = max(1, min(most, count // length))
    starts = np.linspace(0, count - length, fit).round().astype(int) if fit > 1 else [0]
    return [list(range(int(start), int(start) + length, step)) for start in starts]


def measured(scene: Any, frames: list[int], colmap: bool) -> dict[str, Any]:
    """Figures of one stretch."""
    width, height = (side // MULTIPLE * MULTIPLE for side in scene.full_size)
    views = scene.read(frames, height, width)
    photos = list((views.images * 255).round().byte().permute(0, 2, 3, 1).numpy())
    row: dict[str, Any] = {"size": [width, height]}
    for quality in ("draft", "standard"):
        start = time.perf_counter()
        options = ReconstructOptions(views=len(frames), held_out=0, quality=quality)
        found = nas3r.reconstruct(photos, options)
        seconds = time.perf_counter() - start
        used = [int(Path(view.label).stem.split("_")[-1]) - 1 for view in found.views]
        row |= figures(quality, found.photo_cameras, used, views, width, height)
        row[f"{quality}_seconds"] = round(seconds, 1)
    row["adjusted"] = found.record.adjusted
    if colmap:
        start = time.perf_counter()
        poses, matrices = map_incrementally(views.images)
        errors = pose_errors(poses, views.cameras.world_from_camera[0].double()).maximum
        row["colmap"] = [round(100 * x, 1) for x in auc(errors, (5, 10, 20))]
        placed = torch.isfinite(poses[:, 0, 0])
        row["colmap_placed"] = int(placed.sum())
        if placed.any():
            row["colmap_focal"] = focal_error(matrices[placed], views.cameras.intrinsics[0, placed])
        row["colmap_seconds"] = round(time.perf_counter() - start, 1)
    return row


def figures(name: str, cameras: Any, used: list[int], views: Any, width: int, height: int) -> dict[str, Any]:
    """AUC over all pairs; photos that were left out have no pose."""
    poses = torch.full((len(views.images), 4, 4), torch.nan, dtype=torch.float64)
    poses[used] = torch.from_numpy(np.stack([camera.world_from_camera for camera in cameras]))
    errors = pose_errors(poses, views.cameras.world_from_camera[0].double()).maximum
    size = np.array([[width], [height], [1]])
    matrices = torch.from_numpy(np.stack([camera.intrinsics / size for camera in cameras]))
    return {
        name: [round(100 * x, 1) for x in auc(errors, (5, 10, 20))],
        f"{name}_focal": focal_error(matrices, views.cameras.intrinsics[0, used]),
    }


def focal_error(found: torch.Tensor, true: torch.Tensor) -> float:
    """Median error of the horizontal focal length in percent."""
    return round(float(100 * (found[:, 0, 0] / true[:, 0, 0] - 1).abs().median()), 2)


if __name__ == "__main__":
    tyro.cli(Benchmark).run()
