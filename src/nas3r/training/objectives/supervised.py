"""Learning from labels: poses, focal length and depth of posed data. Nothing is rendered."""

from dataclasses import dataclass, field

import torch
from torch import nn

from nas3r.data.posed import LabelledBatch
from nas3r.geometry import Cameras
from nas3r.losses import SupervisedConfig, SupervisedLoss
from nas3r.models import NAS3R, ModelConfig
from nas3r.training.step import StepConfig, StepFunction, StepOutput, add_matching, freeze_matching, predict


@dataclass(frozen=True)
class Supervised:
    """Predicted cameras and depth should be the true ones, up to the scale of the scene.

    Attributes:
        loss: Weights of the terms.
        matching_weight: As in `Photometric`.
    """

    loss: SupervisedConfig = field(default_factory=SupervisedConfig)
    matching_weight: float = 0.03

    def needs_labels(self, config: ModelConfig) -> bool:
        """Always."""
        return True

    def prepare(self, model: NAS3R) -> None:
        """Freezes what this objective leaves as it is."""
        if self.matching_weight == 0:
            freeze_matching(model)

    def make_step(self, config: ModelConfig, step: StepConfig, device: torch.device) -> StepFunction:
        """The loss of a batch."""
        loss = SupervisedLoss(self.loss)

        def on_labels(model: nn.Module, batch: LabelledBatch, progress: float) -> StepOutput:
            return supervised_step(model, batch, loss, self, step, given=config.needs_intrinsics)

        return on_labels

    def describe(self) -> str:
        """The loss in a few words."""
        return "on labels: pose, focal length, depth"


def supervised_step(
    model: nn.Module,
    batch: LabelledBatch,
    loss: SupervisedLoss,
    objective: Supervised,
    step: StepConfig,
    *,
    given: bool = False,
) -> StepOutput:
    """Pose, focal and depth errors of a labelled batch.

    Args:
        model: A `NAS3R`, possibly wrapped for several processes.
        batch: Views and labels.
        loss: Compares prediction and labels.
        objective: Weight of matching.
        step: How to compute it.
        given: Whether the network takes the true intrinsics as input.
    """
    prediction = predict(model, batch.views, step, batch.cameras.intrinsics if given else None)
    assert prediction.target_cameras is not None
    cameras = Cameras.cat([prediction.cameras, prediction.target_cameras])
    terms = loss(cameras, prediction.depth, batch.cameras, batch.depth)
    logged = {name: value.detach() for name, value in terms.items()}
    total = add_matching(terms["loss"], logged, prediction, objective.matching_weight)
    return StepOutput(total, logged, prediction, None)
