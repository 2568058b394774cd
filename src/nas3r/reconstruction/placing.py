"""From chosen views to those that have a place, with cameras, depth and Gaussians."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.adjustment import NotAdjustableError
from nas3r.geometry import Cameras
from nas3r.models import NAS3R, Prediction, infer
from nas3r.models.inference import compared
from nas3r.reconstruction.adjusting import Adjusted, adjusted, among, located
from nas3r.reconstruction.finished import FinishedStages
from nas3r.reconstruction.focal_lengths import KnownIntrinsics
from nas3r.reconstruction.lens_groups import intrinsics_of_others
from nas3r.reconstruction.motion import measure_motion
from nas3r.reconstruction.progress import Progress, stage
from nas3r.reconstruction.scene import HeldOut
from nas3r.reconstruction.selection import select
from nas3r.reconstruction.told_cameras import ToldCameras
from nas3r.reconstruction.views import FEW_VIEWS, ChosenViews, Plan
from nas3r.reconstruction.whole import whole_scene

_FEWEST = 6  # views tied together, below which the network sees a stretch of them at once
_FEW_ONLY = (
    "the pictures could not be tied together as a whole: {} of them, which show most of the same, are used"
)


@dataclass(frozen=True)
class Placed:
    """Cameras, depth and Gaussians, on the CPU, of the views that have a place.

    Attributes:
        views: Those.
        prediction: Of them.
        network_cameras: What the network said of all of them at once; None if it never saw all at once.
        held_out: Views kept aside, with cameras.
        outcome: Of adjusting cameras; None if that was not asked for.
        notes: Sentences for the user about the views.
    """

    views: ChosenViews
    prediction: Prediction
    network_cameras: Cameras | None
    held_out: HeldOut | None
    outcome: Adjusted | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placing:
    """What finding cameras needs, of photos as they were taken and of straight ones."""

    model: NAS3R
    plan: Plan
    told: ToldCameras | None
    part: int
    finished: FinishedStages
    seconds: dict[str, float]
    on_progress: Progress

    def run(self, views: ChosenViews, known: KnownIntrinsics, *, straight: bool = False) -> Placed:
        """Cameras, depth and Gaussians of the views that have a place.

        Args:
            views: That were chosen.
            known: What is told of their cameras.
            straight: Whether no lens bends straight lines, whatever points say.

        Raises:
            ValueError: If cameras are told that the pictures do not agree with, or there is no such part.
        """
        count, found, notes = len(views.context), None, ()
        if self.told is not None or (count > FEW_VIEWS and views.full):
            with stage(self.seconds, "tie pictures together"):
                found = self._from_many(views, known, straight=straight)
            if found is None:
                some = _few_of(self.plan)
                views, known, notes = views.keep(some, []), known.of(some), (_FEW_ONLY.format(count),)
        if found is None and self.part > 1:
            raise ValueError(f"part: these {count} pictures make one part, got {self.part}")
        return found or replace(self._from_few(views, known, straight=straight), notes=notes)

    def _from_many(self, views: ChosenViews, known: KnownIntrinsics, *, straight: bool) -> Placed | None:
        """All views that can be tied together; None if hardly any can."""
        count, told = len(views.context), self.told
        if told is not None and straight:
            assert known.matrices is not None
            told = replace(told, cameras=replace(told.cameras, intrinsics=known.matrices))
        try:
            full = views.full[:count]
            whole = whole_scene(
                self.model,
                views.context,
                views.context_images,
                full,
                known,
                told,
                self.finished,
                self.part,
                self.on_progress,
                straight=straight,
            )
        except NotAdjustableError as error:
            if told is not None:
                raise ValueError(f"known cameras do not fit the pictures: {error}") from error
            return None
        if told is None and self.part == 1 and len(whole.views) < _FEWEST:
            return None
        outcome = whole.outcome
        assert outcome.landmarks is not None
        used = [views.context[i] for i in whole.views]
        others = known.of(range(count, count + len(views.held_out)))
        own = intrinsics_of_others(views.held_out, others, used, outcome.prediction.cameras)
        places, cameras = among(outcome.landmarks, views.full[count:], own)
        views = views.keep(whole.views, places)
        held_out = None if cameras is None else HeldOut(views.held_out, views.held_out_images, cameras)
        return Placed(views, outcome.prediction, None, held_out, outcome)

    def _from_few(self, views: ChosenViews, known: KnownIntrinsics, *, straight: bool) -> Placed:
        """Views that the network sees at once."""
        with stage(self.seconds, "network"):
            predicted, held_out = _predict(self.model, views, known.matrices)
        cameras = predicted.prediction.cameras
        if not views.full:
            return Placed(views, predicted.prediction, cameras, held_out)
        with stage(self.seconds, "adjust cameras"):
            count = len(views.context)
            outcome = adjusted(
                predicted.uncompared, views.context, views.full[:count], known, straight=straight
            )
            if outcome.landmarks is None:
                return Placed(views, predicted.prediction, cameras, held_out, outcome)
            prediction = outcome.prediction
            if self.model.config.compare_views:
                prediction = compared(prediction, views.context_images[None])
            if held_out is not None:
                images = views.full[count:]
                moved = located(outcome.landmarks, images, held_out.cameras, cameras, prediction.cameras)
                held_out = replace(held_out, cameras=moved)
        return Placed(views, prediction, cameras, held_out, outcome)


def _few_of(plan: Plan) -> list[int]:
    """A stretch of the chosen views that the network can see at once."""
    pictures = plan.context
    motions = [measure_motion(a.thumbnail, b.thumbnail) for a, b in pairwise(pictures)]
    sharp = np.array([picture.sharpness for picture in pictures])
    return select(motions, sharp, FEW_VIEWS, 0).views


@dataclass(frozen=True)
class _Predicted:
    """What a network says, before views were compared and after it; on the CPU."""

    uncompared: Prediction
    prediction: Prediction


@torch.no_grad()
def _predict(
    model: NAS3R, views: ChosenViews, given: Float[Tensor, "1 v 3 3"] | None
) -> tuple[_Predicted, HeldOut | None]:
    device = next(model.parameters()).device
    count = len(views.context)
    inferred = infer(
        model, views.context_images[None].to(device), None if given is None else given[:, :count].to(device)
    )
    predicted = _Predicted(inferred.uncompared.to("cpu"), inferred.prediction.to("cpu"))
    if not views.held_out or not model.config.masked:
        return predicted, None
    images = views.held_out_images
    cameras = inferred.locate(images[None].to(device), None if given is None else given[:, count:].to(device))
    return predicted, HeldOut(views.held_out, images, cameras.to("cpu"))
