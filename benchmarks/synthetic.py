"""Frames per second of the synthetic worlds, their repeatability, and the pictures of docs/synthetic.md.

    python benchmarks/synthetic.py                                   # figures, on one core
    python benchmarks/synthetic.py --pictures docs/images            # pictures instead

Rendering and drawing are timed apart: drawing a world and its camera path costs the same at every image size
and is done once for all frames of a clip. Figures are CPU time of one thread (other work on the machine
disturbs it little), the least of several repetitions.
"""

import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from origin import commit
from PIL import Image, ImageDraw

from nas3r.data.synthetic import FAMILIES, PATHS, SyntheticClips, SyntheticConfig, SyntheticScenes
from nas3r.data.synthetic.sources import held_out_seed, render_clip_batch
from nas3r.evaluation.report.pictures import depth_picture
from nas3r.io.images import save_image

WORLDS = 64  # drawn together, as in training
FRAMES = [0, 6, 12]  # a training sample: two context views and a target
STRESS = {
    "none": {},
    "distortion 0.3": {"distortion": 0.3},
    "exposure 2": {"exposure": 2.0},
    "noise 0.1": {"noise": 0.1},
    "blur 0.02": {"blur": 0.02},
    "moving 1": {"moving": 1.0},
}


@dataclass
class Benchmark:
    """Measures, or draws pictures."""

    sizes: tuple[int, ...] = (32, 64, 128)
    """Image sides in pixels."""
    repeats: int = 5
    """Repetitions; the least time counts."""
    output: Path = Path("benchmarks/results/synthetic.json")
    """JSON file for the figures."""
    pictures: Path | None = None
    """Write the pictures of the docs into this folder instead."""

    def run(self) -> None:
        """Prints what it finds."""
        if self.pictures is not None:
            write_families(self.pictures / "synthetic-worlds.jpg")
            write_paths_and_stress(self.pictures / "synthetic-paths.jpg")
            return
        torch.set_num_threads(1)
        report = {
            "drawing worlds and paths per second": WORLDS / self._least(_draw),
            "rendering": {size: self._speed(size) for size in self.sizes},
            "same bytes": repeatability(),
            "machine": platform.machine(),
            "commit": commit(),
        }
        print(json.dumps(report, indent=1))
        self.output.write_text(json.dumps(report, indent=1) + "\n")

    def _speed(self, size: int) -> dict[str, float]:
        clips = SyntheticClips(0, SyntheticConfig(frames=24), size, size)
        batch = range(WORLDS)
        clips.read_batch(batch, [FRAMES] * WORLDS)  # draws the worlds, compiles the kernel
        seconds = self._least(lambda: clips.read_batch(batch, [FRAMES] * WORLDS))
        frames = WORLDS * len(FRAMES)
        return {"frames per second": frames / seconds, "Mpixel per second": frames * size**2 / seconds / 1e6}

    def _least(self, work: Callable[[], object]) -> float:
        work()
        times = []
        for _ in range(self.repeats):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        return min(times)


def _draw() -> None:
    """Draws worlds and paths that no cache holds."""
    clips = SyntheticClips(0, SyntheticConfig(frames=24), 8, 8)
    clips._chunk(0)  # the only way to leave rendering out


def repeatability() -> dict[str, bool]:
    """Whether frames of a world are the same bytes however they are asked for."""
    seeds = [held_out_seed(7, i) for i in range(8)]
    config = SyntheticConfig(frames=24, noise=0.05, exposure=1.0)

    def digest(images: torch.Tensor) -> str:
        return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()

    first = render_clip_batch(seeds, [[0, 5, 9]] * 8, 32, 32, config)
    again = render_clip_batch(seeds, [[0, 5, 9]] * 8, 32, 32, config)
    alone = torch.cat([render_clip_batch([s], [[0, 5, 9]], 32, 32, config) for s in seeds])
    reordered = render_clip_batch(seeds, [[9, 0, 5]] * 8, 32, 32, config)[:, [1, 2, 0]]
    others = {"again": again, "one world at a time": alone, "frames in another order": reordered}
    return {name: digest(images) == digest(first) for name, images in others.items()}


def write_families(path: Path, side: int = 128, worlds: int = 4) -> None:
    """A row per family: four worlds with their true depth."""
    rows = []
    for family in FAMILIES:
        config = SyntheticConfig(families={family: 1.0}, frames=12)
        row = []
        for scene in (SyntheticScenes(3, config, worlds)[i] for i in range(worlds)):
            views = scene.read([5], side, side)
            assert views.depth is not None
            known = views.depth[0][views.depth[0] > 0]
            low, high = torch.quantile(known, torch.tensor([0.02, 0.98])).tolist()
            row += [views.images[0], depth_picture(views.depth[0], low, max(high, 1.01 * low))]
        rows.append((family, row))
    _write_sheet(path, rows, side)


def write_paths_and_stress(path: Path, side: int = 128) -> None:
    """A row per kind of camera path, then the same frame under every stress."""
    frames = [0, 4, 9, 14, 18, 23]
    rows = []
    for number, kind in enumerate(PATHS):
        config = SyntheticConfig(paths={kind: 1.0}, frames=24, baseline=(0.8, 0.8), field_of_view=(65, 65))
        views = SyntheticScenes(5, config, 10)[number].read(frames, side, side)
        rows.append((kind, list(views.images)))
    base = SyntheticConfig(families={"tabletop": 1.0}, frames=24)
    row = [
        SyntheticScenes(2, replace(base, **o), 2)[1].read([18], side, side).images[0] for o in STRESS.values()
    ]
    rows.append(("stress: " + ", ".join(STRESS), row))
    _write_sheet(path, rows, side)


def _write_sheet(path: Path, rows: list[tuple[str, list[torch.Tensor]]], side: int) -> None:
    """Rows of images with a caption above each."""
    gap, text = 4, 16
    width = max(len(images) for _, images in rows) * (side + gap) - gap
    sheet = Image.new("RGB", (width, len(rows) * (side + text + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for r, (caption, images) in enumerate(rows):
        top = r * (side + text + gap)
        draw.text((0, top + 2), caption, fill="black")
        for c, image in enumerate(images):
            pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            sheet.paste(Image.fromarray(pixels), (c * (side + gap), top + text))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(path, np.asarray(sheet), quality=88)


if __name__ == "__main__":
    tyro.cli(Benchmark, description=__doc__).run()
