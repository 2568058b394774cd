"""New views of real scenes at 512 px: photos that took no part, beside what they look like in the scene.

    python benchmarks/new_views.py DATA/fox DATA/bonsai --cache CACHE -o new_views.json

A scene is cut into stretches of neighbouring photos. Of every five photos of a stretch one is kept aside; the
scene is made of some of the others, evenly spread. Kept photos are found in the scene by its points, aligned
with the fitted Gaussians by their own pixels, and compared at 512 px of the longer side. Cameras are found
once for every stretch and kept in the cache, so that what follows them can be tried again and again.
"""

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from origin import origin

import nas3r
from nas3r import ReconstructOptions
from nas3r.data.posed_sources import open_posed
from nas3r.evaluation.baselines.splatting import colmap_splatting
from nas3r.evaluation.nvs import psnr
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.losses.structural import ssim
from nas3r.reconstruction import dense, pipeline
from nas3r.reconstruction.scene import Scene
from nas3r.refine.fitting import FitResult
from nas3r.refine.locate import locate_views

MULTIPLE = 8  # of pixels, of the sides of photos
STRETCH = 20  # photos, if the scene has as many
EVERY, ASIDE = 5, 2  # photo ASIDE of every EVERY is kept aside
MOST_STEP = 4  # frames between neighbours
SIDE = 512  # pixels of the longer side, when compared

Kind = Literal["copy", "draft", "adjusted", "dense", "standard", "minute", "rival"]
KINDS: tuple[Kind, ...] = ("copy", "draft", "adjusted", "dense", "standard", "minute", "rival")
STEPS: dict[str, int] = {
    "dense": 0,
    "standard": 150,
    "minute": 400,
}  # of fitting; the last take a minute of two idle cores
RIVAL_STEPS = 1000  # take as long, since they begin with few Gaussians
# Scenes on which settings were chosen; figures of the others are what to report.
CHOOSING = ("fox", "7scenes_redkitchen", "phone_eunseon02")


@dataclass
class Benchmark:
    """Measures new views of stretches of posed scenes."""

    scenes: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of posed scenes."""
    cache: Path
    """Folder for cameras; anywhere but in the repository."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("new_views.json")
    """Results; what stands there is not measured again."""
    views: tuple[int, ...] = (8,)
    """Photos that a scene is made of."""
    stretches: int = 2
    """Of a scene, at most."""
    kinds: tuple[Kind, ...] = KINDS
    """What is compared with the kept photos. copy: the view that looks most like each; draft: the network's
    scene; adjusted: the same with exact cameras; dense: Gaussians of dense depth; standard: these, fitted in
    so many steps as standard quality makes; minute: in as many as two cores make in a minute; rival: COLMAP's
    cameras and points at full size, and Gaussians fitted from there for as long as "minute"."""
    rows: list[dict[str, Any]] = field(default_factory=list, init=False)

    def run(self) -> None:
        """Measures, and writes after every scene that was made."""
        if self.output.exists():
            self.rows = json.loads(self.output.read_text())["rows"]
        for path in self.scenes:
            posed = open_posed(path)[0]
            for number, frames in enumerate(stretches(len(posed), self.stretches)):
                for views in self.views:
                    self._measure(path.name, posed, number, frames, views)

    def _measure(self, name: str, posed: Any, number: int, frames: list[int], views: int) -> None:
        used, kept = split(frames, views)
        if len(used) < views:
            return
        row = {"scene": name, "stretch": number, "views": views, "used": used, "kept": kept}
        row = next((r for r in self.rows if all(r[k] == v for k, v in row.items())), row)
        missing: list[Kind] = [kind for kind in self.kinds if kind not in row]
        if not missing:
            return
        made = prepared(self.cache / f"{name}-{number}-{views}.pt", posed, used, kept)
        for kind in missing:
            row[kind] = measured(kind, made)
            print(name, number, views, kind, json.dumps(row[kind]), flush=True)
        if row not in self.rows:
            self.rows.append(row)
        self._write()

    def _write(self) -> None:
        about = origin(self.scenes, nas3r.load(device="cpu"))
        self.output.write_text(json.dumps({"origin": about, "rows": self.rows}, indent=1) + "\n")


@dataclass(frozen=True)
class Prepared:
    """A stretch with its cameras.

    Attributes:
        draft: Scene as the network says.
        adjusted: With exact cameras.
        behind: Its backdrop.
        full: Its photos at full size.
        views: The whole photos.
        kept: Photos kept aside.
        in_draft: Where these are in the draft.
        in_adjusted: Ditto.
        seconds: What it took.
    """

    draft: Scene
    adjusted: Scene
    behind: Gaussians
    full: list[np.ndarray]
    views: list[np.ndarray]
    kept: list[np.ndarray]
    in_draft: Cameras
    in_adjusted: Cameras
    seconds: dict[str, float]


def stretches(count: int, most: int) -> Iterator[list[int]]:
    """Frames of stretches that are spread over a scene, with the widest steps that leave them apart."""
    length = min(STRETCH, count // EVERY * EVERY)
    step = int(np.clip(count // (length * most), 1, MOST_STEP))
    long = (length - 1) * step + 1
    fit = max(1, min(most, count // long))
    for start in np.linspace(0, count - long, fit).round().astype(int) if fit > 1 else [0]:
        yield list(range(int(start), int(start) + long, step))


def split(frames: list[int], views: int) -> tuple[list[int], list[int]]:
    """Photos that a scene is made of, evenly spread, and those kept aside, whatever the number of views."""
    kept = frames[ASIDE::EVERY]
    others = [frame for frame in frames if frame not in kept]
    chosen = np.linspace(0, len(others) - 1, min(views, len(others))).round().astype(int)
    return [others[i] for i in chosen], kept


def prepared(cache: Path, posed: Any, used: list[int], kept: list[int]) -> Prepared:
    """Scenes of a stretch, from the cache if they are there."""
    if cache.exists():
        return torch.load(cache, weights_only=False)
    width, height = (side // MULTIPLE * MULTIPLE for side in posed.full_size)
    pixels = posed.read([*used, *kept], height, width).images
    photos = list((pixels * 255).round().byte().permute(0, 2, 3, 1).numpy())
    views, aside = photos[: len(used)], photos[len(used) :]
    model = nas3r.load(device="cpu")
    seconds: dict[str, float] = {}
    scenes: list[Scene] = []
    cameras: list[Cameras] = []
    taken: list[Any] = []

    def left_out(scene: Scene, full: Any, behind: Gaussians, *_: Any, **__: Any) -> Scene:
        taken[:] = full, behind
        return scene

    for quality in ("draft", "standard"):
        start = time.perf_counter()
        options = ReconstructOptions(views=len(used), held_out=0, quality=quality)
        with mock.patch.object(pipeline, "densified", left_out):
            found = nas3r.reconstruct(views, options, weights=model)
        seconds[quality] = round(time.perf_counter() - start, 1)
        cameras.append(Cameras.cat([found.locate(photo) for photo in aside]))
        scenes.append(Scene(**{name: getattr(found, name) for name in Scene.__dataclass_fields__}))
    if not taken:
        raise ValueError(f"{cache.stem}: cameras were not adjusted: {scenes[1].record.adjusted}")
    full, behind = taken
    made = Prepared(scenes[0], scenes[1], behind, full, views, aside, cameras[0], cameras[1], seconds)
    cache.parent.mkdir(parents=True, exist_ok=True)
    torch.save(made, cache)
    return made


def measured(kind: Kind, made: Prepared) -> dict[str, Any]:
    """Figures of the kept photos."""
    photos = [at_side(photo) for photo in made.kept]
    if kind == "copy":
        views = [at_side(photo) for photo in made.views]
        return figures([max(views, key=lambda view: psnr(view, photo).item()) for photo in photos], photos)
    if kind == "draft":
        return figures(rendered(made.draft, made.in_draft, photos), photos)
    if kind == "adjusted":
        return figures(rendered(made.adjusted, made.in_adjusted, photos), photos)
    if kind == "rival":
        return rival(made, photos)
    steps = STEPS[kind]
    options = ReconstructOptions(refine_steps=max(steps, 1))
    start = time.perf_counter()
    none = FitResult(Gaussians.empty(), 0, 0.0, None)
    unfitted = mock.patch.object(dense, "fit", lambda g, *_, **__: dataclasses.replace(none, gaussians=g))
    with nullcontext() if steps else unfitted:
        scene = dense.densified(made.adjusted, made.full, made.behind, options)
    seconds = round(time.perf_counter() - start, 1)
    found = figures(rendered(scene, aligned(scene, made.in_adjusted, photos), photos), photos)
    return found | {
        "gaussians": scene.gaussians.num_gaussians,
        "seconds": seconds,
        "dense": scene.record.dense,
    }


def rival(made: Prepared, photos: list[torch.Tensor]) -> dict[str, Any]:
    """COLMAP and splatting; kept photos that COLMAP cannot place have no figure."""
    start = time.perf_counter()
    context, targets = (
        torch.from_numpy(np.stack(group)).permute(0, 3, 1, 2).float() / 255
        for group in (made.views, made.kept)
    )
    found = colmap_splatting(context, targets, steps=RIVAL_STEPS)
    seconds = round(time.perf_counter() - start, 1)
    if found is None:
        return {"psnr": None, "ssim": None, "each": [None] * len(photos), "seconds": seconds}
    good = [i for i in range(len(photos)) if bool(found[i].isfinite().all())]
    images = [at_side((found[i].permute(1, 2, 0) * 255).round().byte().numpy()) for i in good]
    row = figures(images, [photos[i] for i in good]) if good else {"psnr": None, "ssim": None, "each": []}
    each: list[float | None] = [None] * len(photos)
    for i, value in zip(good, row["each"], strict=True):
        each[i] = value
    return row | {"each": each, "seconds": seconds}


def aligned(scene: Scene, cameras: Cameras, photos: list[torch.Tensor]) -> Cameras:
    """Cameras of the kept photos, moved until renderings fit, as those of the rival are."""
    return locate_views(scene.gaussians, cameras, torch.stack(photos))


def rendered(scene: Scene, cameras: Cameras, photos: list[torch.Tensor]) -> list[torch.Tensor]:
    """The scene where the photos were taken."""
    return [
        scene.render(cameras.views([i]), *photo.shape[-2:]).color[0, 0].clamp(0, 1)
        for i, photo in enumerate(photos)
    ]


def figures(images: list[torch.Tensor], photos: list[torch.Tensor]) -> dict[str, Any]:
    """PSNR in dB and SSIM of each photo, and the means."""
    similar = [
        ssim(a[None], b[None], sample_covariance=True).item() for a, b in zip(images, photos, strict=True)
    ]
    decibels = [psnr(a, b).item() for a, b in zip(images, photos, strict=True)]
    return {
        "psnr": round(float(np.mean(decibels)), 2),
        "ssim": round(float(np.mean(similar)), 3),
        "each": [round(x, 2) for x in decibels],
    }


def at_side(photo: np.ndarray) -> torch.Tensor:
    """The photo at the size that is compared [3, h, w]."""
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    factor = SIDE / max(photo.shape[:2])
    size = [round(side * factor) for side in photo.shape[:2]]
    return F.interpolate(image, size=size, mode="bicubic", antialias=True)[0].clamp(0, 1)


if __name__ == "__main__":
    tyro.cli(Benchmark).run()
