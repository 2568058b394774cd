"""`nas3r reconstruct`: photos or a video in; cameras, depth, Gaussians and a report out."""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nas3r.bounds import Within
from nas3r.cli.progress import ProgressBars
from nas3r.reconstruction.options import ReconstructOptions

if TYPE_CHECKING:
    from torch import Tensor

    from nas3r.models import NAS3R
    from nas3r.reconstruction import Reconstruction, Scene
    from nas3r.reconstruction.finished import FinishedStages
    from nas3r.reconstruction.pipeline import Adapt
    from nas3r.reconstruction.record import Record

Flag = tyro.conf.FlagCreatePairsOff[bool]


@dataclass
class Command:
    """Photos or a video in; cameras, depth, 3D Gaussians and a report out.

    The pictures show one scene in which nothing moves, from different places. Poses and focal lengths are
    found, not needed.
    """

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, folders of images, or video files."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Result folder; must not hold anything yet."""

    weights: str | None = None
    """Weights file, or a preset's name for random weights; default: the weights that ship with nas3r."""

    reconstruction: tyro.conf.OmitArgPrefixes[tyro.conf.FlagCreatePairsOff[ReconstructOptions]] = field(
        default_factory=ReconstructOptions
    )

    adapt: Annotated[float | None, Within(above=0)] = None
    """Seconds to fine-tune the network on the pictures themselves before reconstructing."""

    export: tuple[str, ...] = ()
    """What to write beside scene.ply, cameras.json, depth/ and images/: splat, spz, colmap, points,
    nerfstudio, video, report, or all. Default: colmap, points, nerfstudio, video, report."""

    device: str | None = None
    """Where the network runs: cpu, cuda; default: cuda if there is one."""

    overwrite: Flag = False
    """Replace an earlier result in the folder."""

    dry_run: Flag = False
    """Say which views would be used, how large, and about how long it takes; write nothing."""

    json: Flag = False
    """Print the outcome as JSON on standard output."""

    def run(self) -> int:
        """Runs the command."""
        from nas3r.reconstruction.finished import FinishedStages
        from nas3r.reconstruction.output import check_output, output_folder, stages_folder
        from nas3r.reconstruction.storage import available_exports, check_exports

        start = time.perf_counter()
        exports = check_exports(self.export or available_exports())
        if self.dry_run:
            return self._estimate()
        check_output(self.out, overwrite=self.overwrite, inputs=self.inputs)
        finished = FinishedStages(stages_folder(self.out))
        with (
            finished.kept_if_stopped(),
            output_folder(self.out, overwrite=self.overwrite) as staging,
            ProgressBars() as bars,
        ):
            written = self._reconstruct(bars, finished).write(staging, exports, on_progress=bars)
        report_outcome(written, self.out, time.perf_counter() - start, as_json=self.json)
        if not self.export and "video" not in exports:
            tell('no fly-through was made: video needs pip install "nas3r[video]"')
        return 0

    def _reconstruct(self, bars: ProgressBars, finished: "FinishedStages") -> "Reconstruction":
        from nas3r.reconstruction import reconstruct

        return reconstruct(
            self.inputs,
            self.reconstruction,
            weights=self.weights,
            device=self.device,
            adapt=None if self.adapt is None else adapter(self.adapt, bars),
            finished=finished,
            on_progress=bars,
        )

    def _estimate(self) -> int:
        from nas3r.reconstruction.estimate import estimate

        figures = estimate(self.inputs, self.reconstruction, weights=self.weights)
        if self.json:
            print(json.dumps(figures.as_dict()))
        else:
            print(figures.text)
        return 0


def adapter(seconds: float, bars: ProgressBars) -> "Adapt":
    """Fine-tunes a model for so long; for `reconstruct(adapt=...)`."""
    if not seconds > 0:
        raise ValueError(f"adapt: expected a positive number of seconds, got {seconds}")

    def run(model: "NAS3R", frames: "Tensor") -> "tuple[NAS3R, dict[str, Any]]":
        from nas3r.training.adapt import LEAST_FRAMES, adapt

        if len(frames) < LEAST_FRAMES:
            raise ValueError(
                f"--adapt: needs at least {LEAST_FRAMES} pictures to learn from, got {len(frames)} beside "
                "those that are kept aside for testing; bring more, or keep none aside with --held-out 0"
            )
        started = time.perf_counter()
        outcome = adapt(
            model, frames, seconds=seconds, on_step=lambda _, f: bars("adapting", round(100 * f), 100)
        )
        gained = {
            "loss": [round(outcome.before, 5), round(outcome.after, 5)],
            "steps": outcome.steps,
            "best_step": outcome.best_step,
            "frames": len(frames),
            "seconds": round(time.perf_counter() - started, 1),
        }
        return outcome.model, gained

    return run


def report_outcome(scene: "Scene", out: Path, seconds: float, *, as_json: bool) -> None:
    """Tells what was found: a few lines for people, or JSON for machines."""
    if as_json:
        print(json.dumps(outcome(scene, out, seconds)))
        return
    record = scene.record
    for line in (*work_done(record), *(f"note: {note}" for note in record.notes)):
        tell(line)
    for finding in record.findings:
        tell(f"warning: {finding.message}\n         {finding.advice}")
    width, height = scene.network_size or scene.size
    sizes = sorted({(v.resize.original_width, v.resize.original_height) for v in scene.views})
    shown = " to ".join(f"{w} x {h}" for w, h in dict.fromkeys((sizes[0], sizes[-1])))
    fitted = f", fitted at {scene.size[0]} x {scene.size[1]}" if scene.size != (width, height) else ""
    tell(f"pictures of {shown} pixels, seen by the network at {width} x {height}{fitted}")
    report = out / "report.html"
    tell(
        f"{len(scene.views)} views and {scene.gaussians.num_gaussians} Gaussians in {seconds:.1f} s; open "
        f"{report if report.exists() else out}"
    )


def work_done(record: "Record") -> list[str]:
    """What became of the time that was given for adaptation and refinement."""
    lines = []
    if (adapted := record.adapted) is not None:
        before, after = adapted["loss"]
        gain = f"loss from {before:.4f} to {after:.4f}" if after < before else "no gain, left as it was"
        steps = "1 step" if adapted["steps"] == 1 else f"{adapted['steps']} steps"
        lines.append(f"adapted in {adapted['seconds']:.0f} s: {steps}, {gain}")
    if (found := record.adjusted) is not None and found["kept"]:
        lengths = zip(found["focal_px"], found["focal_sd_px"], strict=True)
        focal = ", ".join(f"{length:.0f} +- {spread:.1f}" for length, spread in lengths)
        lines.append(
            f"cameras adjusted to {found['points']:,} points, {found['error_px']:.1f} px from where they are "
            f"seen; focal length {focal} px"
        )
    if (dense := record.dense) is not None and dense["kept"]:
        before, after = dense["psnr"]
        gain = f"{after:.1f}" if before is None else f"from {before:.1f} to {after:.1f}"
        width, height = dense["size"]
        lines.append(
            f"depth at {width} x {height}, Gaussians fitted in {dense['seconds']['fitting']:.0f} s: "
            f"{dense['steps']} steps, PSNR of the {dense['measured_on']} {gain} dB"
        )
    if (refined := record.refined) is not None:
        steps = [str(refined[name]) for name in ("steps", "detail_steps") if refined.get(name) is not None]
        before, after = refined.get("detail_train_psnr") or refined["train_psnr"]
        lines.append(
            f"refined in {refined['seconds']:.0f} s: {' and '.join(steps)} steps, PSNR of the pictures from "
            f"{before:.1f} to {after:.1f} dB"
        )
    return lines


def tell(line: str) -> None:
    """A line for people, apart from the standard output that programs read."""
    print(line, file=sys.stderr)


def outcome(scene: "Scene", out: Path, seconds: float) -> dict[str, Any]:
    """What `--json` prints."""
    record = scene.record
    return {
        "out": str(out),
        "views": [view.label for view in scene.views],
        "skipped": [{"file": item.label, "reason": item.reason} for item in scene.unreadable],
        "size": list(scene.size),
        "gaussians": scene.gaussians.num_gaussians,
        "focal": record.focal,
        "focal_px": [round(float(camera.intrinsics[0, 0]), 2) for camera in scene.photo_cameras],
        "scores": record.scores,
        "notes": record.notes,
        "findings": [
            {"kind": finding.kind, "message": finding.message, "advice": finding.advice}
            for finding in record.findings
        ],
        "adjusted": record.adjusted,
        "refined": record.refined,
        "adapted": record.adapted,
        "seconds": {**record.seconds, "total": round(seconds, 2)},
    }
