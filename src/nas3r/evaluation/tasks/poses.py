"""Evaluation of camera poses and focal lengths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.posed import PosedScene, PosedSource, PosedViews
from nas3r.evaluation.baselines.copying import identity_poses
from nas3r.evaluation.baselines.mapping import map_incrementally
from nas3r.evaluation.baselines.pnp import predicted_pnp_poses
from nas3r.evaluation.baselines.two_view import SiftEssential, guessed_intrinsics
from nas3r.evaluation.inference import Inference
from nas3r.evaluation.planning import Item
from nas3r.evaluation.pose import (
    PoseErrors,
    all_pairs,
    focal_errors,
    recall_curve,
    relative_pose_errors,
    relative_poses,
    summarise,
    trajectory_error,
)
from nas3r.evaluation.protocols import ViewSet
from nas3r.evaluation.report import Album, Chart, Column, Series, Table, line_chart
from nas3r.evaluation.runner import Record
from nas3r.evaluation.tasks.novel_views import tags_present

BASELINES = ("identity", "sift", "sift-guess", "sift-full", "colmap", "colmap-full")
_NAMES = {
    "identity": "identity",
    "sift": "SIFT + MAGSAC, true K",
    "sift-guess": "SIFT + MAGSAC, guessed focal",
    "sift-full": "SIFT + MAGSAC, true K, full size",
    "colmap": "COLMAP mapper",
    "colmap-full": "COLMAP mapper, full size",
}
_LAST_TARGET = "nas3r, last target's pass"
_CURVE_END = 30.0  # degrees


@dataclass(frozen=True)
class _Estimate:
    """What a method found: relative poses of pairs, and poses of all views if it gives any."""

    relative: Float[Tensor, "p 4 4"]
    poses: Float[Tensor, "v 4 4"] | None = None
    intrinsics: Float[Tensor, "v 3 3"] | None = None


class Poses:
    """Pose and focal errors of the context views; a `Task`.

    "default": the model sees the context alone, and every pair of context views counts. "published": the
    pair of first and last context view counts; the model's errors are also given from the pass with the
    last target, together with the targets' own errors; a failed PnP counts as the identity.

    Args:
        inference: The model; None for baselines alone.
        size: Side of the square images in pixels.
        baselines: Of `BASELINES`. The COLMAP mapper needs more than two views; "-full" variants see the same
            part of the scene at the full resolution of the data.
        published: Whether to follow the published protocol.
    """

    name = "pose"
    title = "Camera pose"
    needs_targets = False
    needs_depth = False

    def __init__(
        self,
        inference: Inference | None,
        size: int,
        *,
        baselines: Sequence[str] = BASELINES[:3],
        published: bool = False,
    ) -> None:
        self.inference, self.size = inference, size
        self.baselines, self.published = tuple(baselines), published

    def settings(self) -> dict[str, Any]:
        """What decides the numbers."""
        return {"size": self.size, "baselines": list(self.baselines)}

    def prepare(self, source: PosedSource, items: Sequence[Item]) -> None:
        """Nothing to prepare."""

    def run(self, scene: PosedScene, view_set: ViewSet, album: Album) -> Record:
        """Errors of every method: a list with a value per pair of views."""
        count = len(view_set.context)
        wanted = [*view_set.context, *(view_set.targets if self.published else ())]
        views = scene.read(wanted, self.size, self.size)
        context = scene.read(view_set.context, self.size, self.size) if self.published else views
        pairs = [(0, count - 1)] if self.published else all_pairs(count)
        out = {}
        for name, estimate in self._estimates(scene, views, context, view_set, pairs):
            out[name] = self._measure(estimate, context, pairs)
        if self.published and self.inference is not None and view_set.targets:
            out[_LAST_TARGET] |= self._target_errors(views, view_set)
        self._picture(context, out, album)
        return out

    def _estimates(
        self,
        scene: PosedScene,
        views: PosedViews,
        context: PosedViews,
        view_set: ViewSet,
        pairs: list[tuple[int, int]],
    ) -> list[tuple[str, _Estimate]]:
        out = []
        if self.inference is not None:
            out += self._model_estimates(views, view_set, pairs)
        for baseline in self.baselines:
            estimate = self._baseline(baseline, scene, context, view_set, pairs)
            if estimate is not None:
                out.append((_NAMES[baseline], estimate))
        return out

    def _model_estimates(
        self, views: PosedViews, view_set: ViewSet, pairs: list[tuple[int, int]]
    ) -> list[tuple[str, _Estimate]]:
        assert self.inference is not None
        prediction = self.inference.reconstruct(views, view_set)
        poses, intrinsics = prediction.cameras.world_from_camera[0], prediction.cameras.intrinsics[0]
        config = self.inference.model.config
        known = None if config.intrinsics_token else intrinsics
        pnp = predicted_pnp_poses(prediction, config, self.size, self.size)
        if self.published:
            failed = pnp.isnan().flatten(1).any(1)
            pnp[failed] = identity_poses(1).to(pnp)
        out = [
            ("nas3r", _global_estimate(poses, pairs, known)),
            ("nas3r, PnP", _global_estimate(pnp, pairs, known)),
        ]
        if self.published and view_set.targets:
            cameras = self.inference.locate(views, view_set)[-1].prediction.cameras
            out.append(
                (_LAST_TARGET, _global_estimate(cameras.world_from_camera[0], pairs, cameras.intrinsics[0]))
            )
        return out

    def _target_errors(self, views: PosedViews, view_set: ViewSet) -> dict[str, Any]:
        """The targets' mean rotation and folded direction error to the first view, and the larger of both.

        Where a target is the first context frame there is no direction: 90 degrees. (The published code
        measures the direction of a rounding error there.)
        """
        assert self.inference is not None
        count = len(view_set.context)
        true = views.cameras.world_from_camera[0]
        rotation, translation = [], []
        for t, view in enumerate(self.inference.locate(views, view_set)):
            estimate = torch.stack(
                [view.prediction.cameras.world_from_camera[0, 0], view.camera.world_from_camera[0, 0]]
            )
            errors = relative_pose_errors(
                relative_poses(estimate, [(0, 1)]), relative_poses(true[[0, count + t]], [(0, 1)])
            )
            rotation.append(float(errors.rotation))
            translation.append(float(errors.translation_folded.nan_to_num(90.0)))
        mean_rotation, mean_translation = sum(rotation) / len(rotation), sum(translation) / len(translation)
        return {"targets": [mean_rotation, mean_translation, max(mean_rotation, mean_translation)]}

    def _baseline(
        self,
        baseline: str,
        scene: PosedScene,
        context: PosedViews,
        view_set: ViewSet,
        pairs: list[tuple[int, int]],
    ) -> _Estimate | None:
        count = len(view_set.context)
        if baseline == "identity":
            return _global_estimate(identity_poses(count), pairs, None)
        views = context
        if baseline.endswith("-full"):
            full = getattr(scene, "full_size", None)
            if full is None:
                return None
            views = scene.read(view_set.context, min(full), min(full))
        if baseline.startswith("colmap"):
            if count < 3:
                return None
            poses, intrinsics = map_incrementally(views.images)
            return _global_estimate(poses, pairs, intrinsics)
        intrinsics = views.cameras.intrinsics[0]
        if baseline == "sift-guess":
            intrinsics = guessed_intrinsics(count, *views.images.shape[-2:])
        sift = SiftEssential(views.images, intrinsics)
        relative = torch.stack([sift.relative_pose(i, j) for i, j in pairs])
        return _Estimate(relative, intrinsics=intrinsics if baseline == "sift-guess" else None)

    def _measure(
        self, estimate: _Estimate, context: PosedViews, pairs: list[tuple[int, int]]
    ) -> dict[str, Any]:
        true = context.cameras.world_from_camera[0]
        errors = relative_pose_errors(estimate.relative, relative_poses(true, pairs))
        out: dict[str, Any] = {
            "rotation": errors.rotation,
            "translation": errors.translation,
            "failed": int(estimate.relative.isnan().flatten(1).any(1).sum()),
        }
        if estimate.intrinsics is not None:
            second = [j for _, j in pairs]
            out["focal"] = focal_errors(estimate.intrinsics, context.cameras.intrinsics[0])[second]
        if estimate.poses is not None and len(true) > 2 and not self.published:
            out["ate"] = trajectory_error(estimate.poses, true).relative
        return out

    def _picture(self, context: PosedViews, out: Record, album: Album) -> None:
        """The context views, the errors of the first method under them."""
        if not album.enabled:
            return
        lines = [
            f"{name}: R {float(m['rotation'][-1]):.0f}°, t {float(m['translation'][-1]):.0f}°"
            for name, m in out.items()
        ]
        captions = [f"view {k + 1}" for k in range(len(context.images))]
        captions[-1] += " · first to last: " + "; ".join(lines)
        album.add_row(*zip(captions, context.images, strict=True))

    def tables(self, records: Sequence[Record]) -> list[Table]:
        """Pairs pooled over scenes; all and by overlap class."""
        tables = [_error_table(records, self._note())]
        if self.published:
            tables += _target_table(records)
        return tables

    def _note(self) -> str:
        pairs = "first and last context view" if self.published else "all pairs of context views"
        return (
            f"Errors in degrees over {pairs}; AUC is the area under the recall curve up to that many degrees "
            "of the larger of rotation and direction error. 'Folded' forgives a flipped direction, as the "
            "published protocol does. A method that gives no answer is 180 degrees wrong. Focal: median "
            "relative error in percent. ATE: error of the camera centres after similarity alignment, relative "
            "to their spread, mean over view sets."
        )

    def charts(self, records: Sequence[Record]) -> list[Chart]:
        """Recall against error: rotation, direction, and the larger of both (strict)."""
        curves: list[tuple[str, Callable[[PoseErrors], Tensor]]] = [
            ("Rotation", lambda e: e.rotation),
            ("Translation direction, strict", lambda e: e.translation[~e.translation.isnan()]),
            ("Larger of both, strict", lambda e: e.maximum),
            ("Larger of both, sign-folded", lambda e: e.maximum_folded),
        ]
        steps = 61
        x = [_CURVE_END * k / (steps - 1) for k in range(steps)]
        out = []
        for title, pick in curves:
            series = []
            for method in methods(records):
                values = pick(_pooled(records, method))
                if len(values):
                    series.append(Series(method, x, recall_curve(values, _CURVE_END, steps)))
            out.append(line_chart(title, "error below (degrees)", "share of pairs", series, y_range=(0, 1)))
        return out


def _global_estimate(poses: Tensor, pairs: list[tuple[int, int]], intrinsics: Tensor | None) -> _Estimate:
    return _Estimate(relative_poses(poses, pairs), poses, intrinsics)


def methods(records: Sequence[Record]) -> list[str]:
    """Names of the methods that any record has, in order of appearance."""
    return list(dict.fromkeys(name for r in records for name in r["result"]))


def _pooled(records: Sequence[Record], method: str) -> PoseErrors:
    """Errors of all pairs of all records that have the method."""

    def column(key: str, missing: float) -> Tensor:
        values: list[float] = []
        for record in records:
            result = record["result"].get(method)
            if result is not None:
                stored = result.get(key, [torch.nan] * len(result["rotation"]))
                values += [missing if v is None else v for v in stored]
        return torch.tensor(values, dtype=torch.float64)

    # JSON has no NaN: a missing direction is a pair without baseline, a missing focal length a failure.
    return PoseErrors(column("rotation", 180.0), column("translation", torch.nan), column("focal", torch.inf))


def _error_table(records: Sequence[Record], note: str) -> Table:
    thresholds = (5, 10, 20, 30)
    columns = [
        Column("overlap"),
        Column("method"),
        Column("pairs"),
        Column("no answer"),
        Column("R median", 1, "low"),
        Column("t median", 1, "low"),
        Column("t median folded", 1, "low"),
        *(Column(f"AUC@{t}", 3, "high") for t in thresholds),
        *(Column(f"AUC@{t} folded", 3, "high") for t in thresholds),
        Column("focal %", 1, "low"),
        Column("ATE", 3, "low"),
    ]
    keys = ["rotation_median", "translation_median", "translation_folded_median"]
    keys += [f"{kind}_auc@{t}" for kind in ("pose", "pose_folded") for t in thresholds]
    rows = []
    for tag in ("all", *tags_present(records)):
        chosen = [r for r in records if tag in ("all", r["tag"])]
        for method in methods(chosen):
            errors = _pooled(chosen, method)
            summary = summarise(errors, thresholds)
            results = [r["result"][method] for r in chosen if method in r["result"]]
            ates = [r["ate"] for r in results if "ate" in r]
            rows.append(
                [
                    tag,
                    method,
                    len(errors.rotation),
                    sum(r["failed"] for r in results),
                    *(summary.get(k) for k in keys),
                    _finite(summary.get("focal_median")),
                    sum(ates) / len(ates) if ates else None,
                ]
            )
    return Table(Poses.title, columns, rows, note, group=0)


def _finite(value: float | None) -> float | None:
    return value if value is not None and value < float("inf") else None


def _target_table(records: Sequence[Record]) -> list[Table]:
    """The published figures of the targets' poses."""
    found = [
        r["result"][_LAST_TARGET]["targets"]
        for r in records
        if "targets" in r["result"].get(_LAST_TARGET, {})
    ]
    if not found:
        return []
    values = torch.tensor(found, dtype=torch.float64)
    means, medians = values.mean(0).tolist(), values.quantile(0.5, dim=0).tolist()
    columns = [Column("figure"), Column("R", 2), Column("t folded", 2), Column("pose", 2)]
    rows = [["mean", *means], ["median", *medians]]
    note = "Per scene the mean over its targets, pose being the larger of the two means; then over scenes."
    return [Table("Pose of the targets (published figures)", columns, rows, note)]
