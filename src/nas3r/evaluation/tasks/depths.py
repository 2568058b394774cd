"""Evaluation of depth maps."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.posed import PosedScene, PosedSource, PosedViews
from nas3r.evaluation.depth import (
    align_disparity,
    align_median,
    depth_errors,
    log_depth_sums,
    mean_map_from_sums,
    valid_mask,
)
from nas3r.evaluation.inference import Inference
from nas3r.evaluation.planning import Item, by_scene, positions
from nas3r.evaluation.protocols import ViewSet
from nas3r.evaluation.report import Album, Chart, Column, Table
from nas3r.evaluation.report.pictures import colourise, depth_picture
from nas3r.evaluation.runner import Record
from nas3r.evaluation.tasks.novel_views import scene_mean, tags_present

BASELINES = ("constant", "mean-map")
_NAMES = {"constant": "constant", "mean-map": "data set's mean depth map"}
_FIGURES = ("abs_rel", "delta_1.25", "tau")


class Depths:
    """Errors of the context views' depth maps; a `Task`.

    The mean depth map leaves out the scene that is evaluated, or, where the data is a single scene, the view
    set: a baseline must not know the answer.

    Args:
        inference: The model; None for baselines alone.
        size: Side of the square images in pixels.
        baselines: Of `BASELINES`.
    """

    name = "depth"
    title = "Depth"
    needs_targets = False
    needs_depth = True

    def __init__(
        self, inference: Inference | None, size: int, *, baselines: Sequence[str] = BASELINES
    ) -> None:
        self.inference, self.size, self.baselines = inference, size, tuple(baselines)
        self._scene_sums: dict[str, Tensor] = {}
        self._view_sums: dict[int, Tensor] = {}  # of the only scene, if there is one only

    def settings(self) -> dict[str, Any]:
        """What decides the numbers."""
        return {"size": self.size, "baselines": list(self.baselines)}

    def prepare(self, source: PosedSource, items: Sequence[Item]) -> None:
        """Reads the true depth of every context view, for the mean maps."""
        groups = list(by_scene(list(items)))
        for number, group in groups:
            try:
                scene = source[number]
                wanted = sorted({v for _, item in group for v in _context(scene, item.view_set)})
                views = scene.read(wanted, self.size, self.size)
            except (ValueError, OSError):
                continue  # the run itself will meet it and name it
            if views.depth is None:
                continue
            sums = [log_depth_sums(depth) for depth in views.depth]
            self._scene_sums[scene.name] = torch.stack(sums).sum(0)
            if len(groups) == 1:
                self._view_sums = dict(zip(wanted, sums, strict=True))

    def run(self, scene: PosedScene, view_set: ViewSet, album: Album) -> Record:
        """Errors of every method: lists with a value per context view that has depth."""
        views = scene.read(view_set.context, self.size, self.size)
        known = [] if views.depth is None else [k for k, d in enumerate(views.depth) if valid_mask(d).any()]
        if not known or views.depth is None:
            raise ValueError("no context view has depth")
        mean_map = self._mean_map(scene.name, view_set)
        predictions = self._predictions(views, view_set, mean_map)
        out: dict[str, dict[str, list[float]]] = {}
        for name, maps in predictions.items():
            per_view = [
                depth_errors(maps[k], views.depth[k], mean_map, views.depth_known_up_to) for k in known
            ]
            out[name] = {key: [errors[key] for errors in per_view] for key in per_view[0]}
        self._picture(views, known, predictions, album)
        return out

    def _mean_map(self, scene: str, view_set: ViewSet) -> Float[Tensor, "h w"]:
        others = [sums for name, sums in self._scene_sums.items() if name != scene]
        if not others:
            others = [sums for view, sums in self._view_sums.items() if view not in view_set.context]
        if not others:  # a single pair: a flat map, which knows nothing
            return torch.ones(self.size, self.size, dtype=torch.float64)
        return mean_map_from_sums(torch.stack(others).sum(0))

    def _predictions(
        self, views: PosedViews, view_set: ViewSet, mean_map: Tensor
    ) -> dict[str, Float[Tensor, "v h w"]]:
        out: dict[str, Tensor] = {}
        if self.inference is not None:
            out["nas3r"] = self.inference.reconstruct(views, view_set).depth[0]
        maps = {"constant": torch.ones_like(mean_map), "mean-map": mean_map}
        return out | {_NAMES[b]: maps[b].expand(len(views.images), -1, -1) for b in self.baselines}

    def _picture(
        self, views: PosedViews, known: list[int], predictions: dict[str, Tensor], album: Album
    ) -> None:
        """A row per view: image, true depth, then each method's aligned depth and relative error."""
        if not album.enabled or views.depth is None:
            return
        align = align_median if views.depth_known_up_to == "scale" else align_disparity
        for k in known:
            true = views.depth[k]
            mask = valid_mask(true)
            low, high = torch.quantile(true[mask], torch.tensor([0.02, 0.98])).tolist()
            row = [(f"view {k + 1}", views.images[k]), ("true depth", depth_picture(true, low, high))]
            for name, maps in predictions.items():
                aligned = torch.zeros_like(true)
                aligned[mask] = align(maps[k][mask].double(), true[mask].double()).to(true)
                error = torch.where(mask, (aligned - true).abs() / true, torch.full_like(true, torch.nan))
                row += [(name, depth_picture(aligned, low, high))]
                row += [(f"relative error {float(error[mask].mean()):.2f}", colourise(error, 0, 0.5))]
            album.add_row(*row)

    def tables(self, records: Sequence[Record]) -> list[Table]:
        """Means over views, view sets and scenes; all and by overlap class."""
        ranks = [Column("Spearman", 3, "high"), Column("Spearman, mean map removed", 3, "high")]
        first = self._table(records, ("median",), ranks, self.title, self._note(records))
        note = "Least-squares scale and shift of the depth, or of its inverse (disparity)."
        other = self._table(records, ("scale_and_shift", "disparity"), [], "Depth, other alignments", note)
        return [first, other]

    def _table(
        self, records: Sequence[Record], alignments: Sequence[str], ranks: list[Column], title: str, note: str
    ) -> Table:
        columns = [Column("overlap"), Column("method"), Column("scenes"), Column("view sets")]
        for alignment in alignments:
            name = alignment.replace("_and_", " + ")
            columns += [Column(f"{name}: abs rel", 3, "low")]
            columns += [Column("δ<1.25", 3, "high"), Column("τ", 3, "high")]
        keys = [f"{a}/{f}" for a in alignments for f in _FIGURES]
        keys += ["spearman", "spearman_given_mean"] if ranks else []
        rows = []
        for tag in ("all", *tags_present(records)):
            chosen = [r for r in records if tag in ("all", r["tag"])]
            for method in chosen[0]["result"]:
                values = [scene_mean(chosen, method, key) for key in keys]
                rows.append([tag, method, len({r["scene"] for r in chosen}), len(chosen), *values])
        return Table(title, [*columns, *ranks], rows, note, group=0).compact()

    def _note(self, records: Sequence[Record]) -> str:
        note = (
            "Over pixels with known truth, after the alignment named in the heading; τ is the share within "
            "3 %. The last column is the rank correlation with what the data set's mean depth map explains "
            "removed: what a method knows about this image. The mean map leaves out the scene (or the view "
            "set, where there is one scene)."
        )
        methods = records[0]["result"]
        shifted = [r for r in records if "median/abs_rel" not in r["result"][next(iter(methods))]]
        if shifted:
            note += (
                f" {len(shifted)} view sets have a true disparity with unknown offset: they count only in "
                "the disparity and rank columns."
            )
        return note

    def charts(self, records: Sequence[Record]) -> list[Chart]:
        """None."""
        return []


def _context(scene: PosedScene, view_set: ViewSet) -> tuple[int, ...]:
    """Places of the context views; none where one is missing, which the run itself will name."""
    try:
        return positions(scene, view_set)[0].context
    except ValueError:
        return ()
