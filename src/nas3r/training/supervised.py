"""Objectives on labelled batches: supervision by cameras and depth, and pixels with given intrinsics."""

from torch import nn

from nas3r.data.clips import ViewBatch
from nas3r.geometry import Cameras
from nas3r.losses import PhotometricLoss, SupervisedLoss
from nas3r.training.config import StepConfig
from nas3r.training.labelled import LabelledBatch
from nas3r.training.step import StepOutput, add_matching, photometric_step, predict


def views_of(batch: LabelledBatch) -> ViewBatch:
    """The batch without its labels."""
    return ViewBatch(batch.context, batch.target)


def given_intrinsics_step(
    model: nn.Module,
    batch: LabelledBatch,
    loss: PhotometricLoss,
    config: StepConfig,
    *,
    progress: float = 1.0,
) -> StepOutput:
    """The photometric step of a network that is told the intrinsics; poses and depth stay unseen."""
    return photometric_step(
        model, views_of(batch), loss, config, progress=progress, intrinsics=batch.cameras.intrinsics
    )


def supervised_step(
    model: nn.Module, batch: LabelledBatch, loss: SupervisedLoss, config: StepConfig, *, given: bool = False
) -> StepOutput:
    """Pose, focal and depth errors of a labelled batch; nothing is rendered.

    Args:
        model: A `NAS3R`, possibly wrapped for several processes.
        batch: Views and labels.
        loss: Compares prediction and labels.
        config: Options of the step.
        given: Whether the network takes the true intrinsics as input.
    """
    intrinsics = batch.cameras.intrinsics if given else None
    prediction = predict(model, views_of(batch), config, intrinsics)
    assert prediction.target_cameras is not None
    cameras = Cameras.cat([prediction.cameras, prediction.target_cameras])
    terms = loss(cameras, prediction.depth, batch.cameras, batch.depth)
    logged = {name: value.detach() for name, value in terms.items()}
    return StepOutput(add_matching(terms["loss"], logged, prediction, config), logged, prediction, None)
