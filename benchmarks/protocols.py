"""How far the published protocol and the default are apart, on a real video.

    python benchmarks/protocols.py FOLDER [--scenes 48]

FOLDER is posed data whose frames follow each other in time, with a `cameras.json`. Windows of it become
scenes of a `.torch` chunk with an evaluation index as the published one is made: three targets drawn from all
frames of the window, its ends included. Both protocols then run on the same index.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from nas3r.data.posed import PosedScene
from nas3r.data.posed_sources import open_posed
from nas3r.evaluation.overlap import OVERLAP_SIZE, pairwise_overlap

_TARGETS = 3


@dataclass
class Benchmark:
    """Runs both protocols."""

    folder: tyro.conf.Positional[Path]
    """Posed video with a cameras.json."""
    scenes: int = 48
    """Windows of the video."""
    gap: tuple[int, int] = (20, 60)
    """Least and largest number of frames between the context views."""
    seed: int = 0
    """Of the windows and targets."""
    output: Path = Path("benchmarks/results/protocols.json")
    """JSON file for the figures."""

    def run(self) -> None:
        """Prints the tables of both."""
        report: dict[str, Any] = {"data": self.folder.name, "scenes": self.scenes, "gap": self.gap}
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            index = self._write(work / "chunks")
            repeated = sum(t in entry["context"] for entry in index.values() for t in entry["target"])
            report["targets equal to a context frame"] = [repeated, _TARGETS * self.scenes]
            for protocol in ("published", "default"):
                for task in ("nvs", "pose"):
                    report[f"{protocol} {task}"] = _evaluate(task, protocol, work)
        self.output.write_text(json.dumps(report, indent=1) + "\n")
        print(json.dumps(report, indent=1))

    def _write(self, out: Path) -> dict[str, Any]:
        """Writes the chunk and its index."""
        out.mkdir()
        frames = json.loads((self.folder / "cameras.json").read_text())["frames"]
        scene = open_posed(str(self.folder))[0]
        rng = np.random.default_rng(self.seed)
        entries, index = [], {}
        for number in range(self.scenes):
            gap = int(rng.integers(self.gap[0], self.gap[1] + 1))
            left = int(rng.integers(0, len(frames) - gap))
            targets = rng.integers(left, left + gap + 1, _TARGETS)
            used = sorted({left, left + gap, *map(int, targets)})
            key = f"window{number:03d}"
            entries.append(_chunk_entry(key, self.folder, [frames[i] for i in used]))
            index[key] = {
                "context": [used.index(left), used.index(left + gap)],
                "target": [used.index(int(t)) for t in targets],
                "overlap": _overlap(scene, left, left + gap),
            }
        torch.save(entries, out / "000000.torch")
        (out.parent / "index.json").write_text(json.dumps(index))
        return index


def _overlap(scene: PosedScene, first: int, last: int) -> float:
    return float(pairwise_overlap(scene.read([first, last], OVERLAP_SIZE, OVERLAP_SIZE))[0, 1])


def _chunk_entry(key: str, folder: Path, frames: list[dict[str, Any]]) -> dict[str, Any]:
    """A scene as RE10K distributes it: encoded images; focal lengths, centre, two zeros, world-to-camera."""
    rows, images = [], []
    for frame in frames:
        (width, height), (fx, fy, cx, cy) = frame["size"], frame["K"]
        pose = np.asarray(frame["w2c"])[:3].ravel()
        rows.append([fx / width, fy / height, cx / width, cy / height, 0, 0, *pose])
        images.append(torch.from_numpy(np.fromfile(folder / frame["file"], np.uint8)))
    return {"key": key, "cameras": torch.tensor(rows, dtype=torch.float32), "images": images}


def _evaluate(task: str, protocol: str, work: Path) -> dict[str, Any]:
    """Rows of all tables of one evaluation, those of all overlaps together."""
    out = work / f"{protocol}-{task}"
    command = [sys.executable, "-m", "nas3r.cli.main", "evaluate", task, str(work / "chunks")]
    command += [
        "--index",
        str(work / "index.json"),
        "--protocol",
        protocol,
        "-o",
        str(out),
        "--pictures",
        "0",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    results = json.loads((out / "results.json").read_text())
    tables = {}
    for table in results["tables"]:
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
        tables[table["title"]] = [row for row in rows if row.get("overlap", "all") == "all"]
    return {"view sets": results["view_sets"], "tables": tables}


if __name__ == "__main__":
    tyro.cli(Benchmark, description=__doc__).run()
