"""Evaluation of camera poses and focal lengths."""

from collections.abc import Sequence
from typing import Any

import torch

from nas3r.data.posed import PosedScene, PosedSource, PosedViews
from nas3r.evaluation.baselines.copying import identity_poses
from nas3r.evaluation.baselines.pnp import predicted_pnp_poses
from nas3r.evaluation.inference import Inference
from nas3r.evaluation.planning import Item
from nas3r.evaluation.pose import (
    all_pairs,
    focal_errors,
    relative_pose_errors,
    relative_poses,
    trajectory_error,
)
from nas3r.evaluation.protocols import ViewSet
from nas3r.evaluation.report import Album, Chart, Table
from nas3r.evaluation.runner import Record
from nas3r.evaluation.tasks.pose_baselines import BASELINES, Estimate, baseline_estimates
from nas3r.evaluation.tasks.pose_tables import folded_table, recall_charts, strict_table, target_table

LAST_TARGET = "nas3r, last target's pass"
GIVEN = "nas3r, true K"


class Poses:
    """Pose and focal errors of the context views; a `Task`.

    "default": the model sees the context alone, and every pair of context views counts; a model that can be
    told the intrinsics, but need not be, is measured both ways. "published": the pair of first and last
    context view counts; the model's errors are also given from the pass with the last target, together with
    the targets' own errors; a failed PnP counts as the identity.

    Args:
        inference: The model; None for baselines alone.
        size: Side of the square images in pixels.
        baselines: Of `BASELINES`. The COLMAP mapper needs more than two views; "-full" variants see the same
            part of the scene at the full resolution of the data.
        published: Whether to follow the published protocol.
        outer_only: Whether the pair of first and last view alone counts, as it does when published.
        pnp: Whether to add the model's poses by PnP from its points.
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
        outer_only: bool = False,
        pnp: bool = True,
    ) -> None:
        self.inference, self.size = inference, size
        self.baselines, self.published = tuple(baselines), published
        self.outer_only, self.pnp = outer_only or published, pnp

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
        pairs = [(0, count - 1)] if self.outer_only else all_pairs(count)
        out = {}
        for name, estimate in self._estimates(scene, views, context, view_set, pairs):
            out[name] = self._measure(estimate, context, pairs)
        if self.published and self.inference is not None and view_set.targets:
            out[LAST_TARGET] |= self._target_errors(views, view_set)
        self._picture(context, out, album)
        return out

    def _estimates(
        self,
        scene: PosedScene,
        views: PosedViews,
        context: PosedViews,
        view_set: ViewSet,
        pairs: list[tuple[int, int]],
    ) -> list[tuple[str, Estimate]]:
        out = []
        if self.inference is not None:
            out += self._model_estimates(views, view_set, pairs)
        return out + baseline_estimates(self.baselines, scene, context, view_set, pairs)

    def _model_estimates(
        self, views: PosedViews, view_set: ViewSet, pairs: list[tuple[int, int]]
    ) -> list[tuple[str, Estimate]]:
        assert self.inference is not None
        prediction = self.inference.reconstruct(views, view_set)
        poses, intrinsics = prediction.cameras.world_from_camera[0], prediction.cameras.intrinsics[0]
        config = self.inference.model.config
        known = None if config.needs_intrinsics else intrinsics
        out = [("nas3r", Estimate.of_poses(poses, pairs, known))]
        if self.pnp:
            pnp = predicted_pnp_poses(prediction, config, self.size, self.size)
            if self.published:
                failed = pnp.isnan().flatten(1).any(1)
                pnp[failed] = identity_poses(1).to(pnp)
            out.append(("nas3r, PnP", Estimate.of_poses(pnp, pairs, known)))
        if config.takes_intrinsics and not config.needs_intrinsics and not self.published:
            told = Inference(self.inference.model, given_intrinsics=True).reconstruct(views, view_set)
            out.append((GIVEN, Estimate.of_poses(told.cameras.world_from_camera[0], pairs)))
        if self.published and view_set.targets:
            cameras = self.inference.locate(views, view_set)[-1].prediction.cameras
            out.append(
                (LAST_TARGET, Estimate.of_poses(cameras.world_from_camera[0], pairs, cameras.intrinsics[0]))
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

    def _measure(
        self, estimate: Estimate, context: PosedViews, pairs: list[tuple[int, int]]
    ) -> dict[str, Any]:
        true = context.cameras.world_from_camera[0]
        errors = relative_pose_errors(estimate.relative, relative_poses(true, pairs))
        out: dict[str, Any] = {
            "rotation": errors.rotation,
            "translation": errors.translation,
            "failed": errors.failed.int(),
        }
        if estimate.intrinsics is not None:
            second = [j for _, j in pairs]
            out["focal"] = focal_errors(estimate.intrinsics, context.cameras.intrinsics[0])[second]
        if estimate.poses is not None and len(true) > 2 and not self.outer_only:
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
        pairs = "first and last context view" if self.outer_only else "all pairs of context views"
        tables = [strict_table(records, pairs), folded_table(records)]
        targets = target_table(records, LAST_TARGET) if self.published else None
        return tables if targets is None else [*tables, targets]

    def charts(self, records: Sequence[Record]) -> list[Chart]:
        """Recall against error."""
        return recall_charts(records)
