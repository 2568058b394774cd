"""Evaluation of novel views."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.data.posed import PosedScene, PosedSource, PosedViews
from nas3r.evaluation.alignment import align_pose, squared_error
from nas3r.evaluation.baselines.copying import mean_context, nearest_context
from nas3r.evaluation.baselines.mapping import import_pycolmap
from nas3r.evaluation.baselines.splatting import colmap_splatting
from nas3r.evaluation.inference import Inference
from nas3r.evaluation.nvs import psnr, ssim
from nas3r.evaluation.planning import Item
from nas3r.evaluation.protocols import CLASSES, ViewSet
from nas3r.evaluation.report import Album, Chart, Column, Table
from nas3r.evaluation.report.pictures import error_picture
from nas3r.evaluation.runner import Record

COPIES = ("nearest", "mean")
SPLATTING = "colmap-3dgs"
BASELINES = (*COPIES, SPLATTING)
_NAMES = {"nearest": "nearest context", "mean": "mean of contexts", SPLATTING: "COLMAP + 3DGS"}
_COPIES = {"nearest": nearest_context, "mean": mean_context}

# Equal images have an infinite PSNR, which no mean survives; only a target that is a context frame has one.
_MAX_PSNR = 100.0
_LPIPS_WEIGHT = 0.05  # of the published alignment loss

Perceptual = Callable[[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]], Float[Tensor, "n"]]


class NovelViews:
    """PSNR, SSIM and LPIPS of target views; a `Task`.

    Args:
        inference: The model; None for baselines alone.
        size: Side of the square images in pixels.
        align: "pose" adds the model's rendering after test-time alignment of the target's pose.
        baselines: Of `BASELINES`. COLMAP and splatting see the same part of the context at the full
            resolution of the data; their renderings are brought to the size that is compared.
        splat_seconds: For which Gaussians are fitted to COLMAP's cameras.
        lpips: Perceptual distance, on the model's device; None where its weights are not at hand (there is
            no such column then).
    """

    name = "nvs"
    title = "Novel views"
    needs_targets = True
    needs_depth = False

    def __init__(
        self,
        inference: Inference | None,
        size: int,
        *,
        align: Literal["none", "pose"] = "none",
        baselines: Sequence[str] = COPIES,
        splat_seconds: float = 60.0,
        lpips: Perceptual | None = None,
    ) -> None:
        self.inference, self.size, self.align = inference, size, align
        self.baselines, self.lpips = tuple(baselines), lpips
        self.splat_seconds = splat_seconds
        if SPLATTING in baselines:
            import_pycolmap()  # its absence is said before the work

    def settings(self) -> dict[str, Any]:
        """What decides the numbers."""
        return {
            "size": self.size,
            "align": self.align,
            "baselines": list(self.baselines),
            "lpips": self.lpips is not None,
            **({"splat_seconds": self.splat_seconds} if SPLATTING in self.baselines else {}),
        }

    def prepare(self, source: PosedSource, items: Sequence[Item]) -> None:
        """Nothing to prepare."""

    def run(self, scene: PosedScene, view_set: ViewSet, album: Album) -> Record:
        """Metrics of every method: a list with a value per target."""
        views = scene.read([*view_set.context, *view_set.targets], self.size, self.size)
        count = len(view_set.context)
        context, targets = views.images[:count], views.images[count:]
        images = self._renderings(views, view_set) if self.inference else {}
        images |= {_NAMES[b]: _COPIES[b](context, targets) for b in self.baselines if b in COPIES}
        if SPLATTING in self.baselines:
            images[_NAMES[SPLATTING]] = self._splatted(scene, view_set, targets)
        self._picture(context, targets, images, album)
        return {name: self._measure(image, targets) for name, image in images.items()}

    def _renderings(self, views: PosedViews, view_set: ViewSet) -> dict[str, Tensor]:
        assert self.inference is not None
        near = self.inference.near(views, view_set)
        targets = views.images[len(view_set.context) :]
        predicted, aligned = [], []
        for view, target in zip(self.inference.locate(views, view_set), targets, strict=True):
            gaussians = view.prediction.gaussians
            predicted.append(self.inference.render(gaussians, view.camera, self.size, self.size, near))
            if self.align == "pose":
                camera = align_pose(
                    gaussians.to(self.inference.device),
                    view.camera.to(self.inference.device),
                    target.to(self.inference.device),
                    loss=self._alignment_loss,
                    near=near,
                )
                aligned.append(self.inference.render(gaussians, camera, self.size, self.size, near))
        out = {"nas3r": torch.stack(predicted)}
        if aligned:
            out["nas3r, pose aligned"] = torch.stack(aligned)
        return out

    def _splatted(self, scene: PosedScene, view_set: ViewSet, targets: Tensor) -> Tensor:
        """By COLMAP and splatting at full size; NaN for what they do not find."""
        full = getattr(scene, "full_size", (self.size, self.size))
        side = max(min(full), self.size)
        views = scene.read([*view_set.context, *view_set.targets], side, side)
        count = len(view_set.context)
        found = colmap_splatting(views.images[:count], views.images[count:], seconds=self.splat_seconds)
        if found is None:
            return torch.full_like(targets, torch.nan)
        size = (self.size, self.size)
        return F.interpolate(found, size=size, mode="bicubic", antialias=True).clamp(0, 1)

    def _alignment_loss(self, image: Tensor, target: Tensor) -> Tensor:
        loss = squared_error(image, target)
        return loss if self.lpips is None else loss + _LPIPS_WEIGHT * self.lpips(image, target).mean()

    def _measure(self, images: Tensor, targets: Tensor) -> dict[str, Any]:
        out: dict[str, Any] = {
            "psnr": psnr(images, targets).clamp_max(_MAX_PSNR),
            "ssim": ssim(images, targets),
        }
        if self.lpips is not None:
            device = "cpu" if self.inference is None else self.inference.device
            with torch.no_grad():
                out["lpips"] = self.lpips(images.to(device), targets.to(device))
        return out

    def _picture(self, context: Tensor, targets: Tensor, images: dict[str, Tensor], album: Album) -> None:
        """A row for the context, then one for each target: target, rendering, error, ..."""
        if not album.enabled:
            return
        album.add_row(*((f"context {k + 1}", image) for k, image in enumerate(context)))
        for t, target in enumerate(targets):
            row = [("target", target)]
            for name, image in images.items():
                if not image[t].isfinite().all():
                    continue
                value = float(psnr(image[t], target))
                row += [(f"{name}: {value:.1f} dB", image[t]), ("error", error_picture(image[t], target))]
            album.add_row(*row)

    def tables(self, records: Sequence[Record]) -> list[Table]:
        """Means over targets, then view sets of a scene, then scenes; all and by overlap class."""
        columns = [
            Column("overlap"),
            Column("method"),
            Column("scenes"),
            Column("view sets"),
            Column("PSNR", 2, "high"),
            Column("SSIM", 3, "high"),
            Column("LPIPS", 3, "low"),
        ]
        rows = []
        for tag in ("all", *tags_present(records)):
            chosen = [r for r in records if tag in ("all", r["tag"])]
            for method in chosen[0]["result"]:
                found = [r for r in chosen if any(v is not None for v in r["result"][method]["psnr"])]
                scenes = len({r["scene"] for r in found})
                means = [scene_mean(chosen, method, metric) for metric in ("psnr", "ssim", "lpips")]
                rows.append([tag, method, scenes, len(found), *means])
        note = (
            "Mean over the targets of a view set, the view sets of a scene, then the scenes. Nearest context "
            "is the context image with the smallest squared error to the target: the best copying can do."
        )
        if SPLATTING in self.baselines:
            note += (
                f" COLMAP's cameras and points, then Gaussians fitted for {self.splat_seconds:g} s, at full "
                "size; where COLMAP places no context or target, there is nothing, and scenes and view sets "
                "are fewer."
            )
        if self.lpips is None:
            note += " LPIPS was not measured: it needs VGG weights (--lpips-weights)."
        return [Table(self.title, columns, rows, note, group=0).compact()]

    def charts(self, records: Sequence[Record]) -> list[Chart]:
        """None."""
        return []


def tags_present(records: Sequence[Record]) -> list[str]:
    """Overlap classes of the records, from small to large, others last."""
    found = {r["tag"] for r in records}
    return [t for t in (*CLASSES, "tiny", "ignore", "unknown") if t in found]


def scene_mean(records: Sequence[Record], method: str, metric: str) -> float | None:
    """Mean over a record's values, then the view sets of a scene, then scenes; None if not measured."""
    scenes: dict[str, list[float]] = {}
    for record in records:
        values = [v for v in record["result"][method].get(metric, []) if v is not None]
        if values:
            scenes.setdefault(record["scene"], []).append(sum(values) / len(values))
    means = [sum(v) / len(v) for v in scenes.values()]
    return sum(means) / len(means) if means else None
