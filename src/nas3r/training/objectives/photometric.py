"""Learning from pixels alone, the published objective: predict the scene from the context, render it into the
targets, compare."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.data.clips import ViewBatch
from nas3r.data.posed import LabelledBatch
from nas3r.losses import PhotometricConfig, PhotometricLoss, image_psnr
from nas3r.models import NAS3R, ModelConfig
from nas3r.render import render
from nas3r.training.finite import replace_non_finite
from nas3r.training.objectives.alone import alone_loss
from nas3r.training.step import StepConfig, StepFunction, StepOutput, add_matching, freeze_matching, predict

_PERCEPTUAL = {"lpips": "LPIPS (VGG16)", "ssim": "SSIM and gradients (download-free)"}


@dataclass(frozen=True)
class Photometric:
    """Target views, rendered at the poses that the network predicts for them, should look like the photos.

    Attributes:
        loss: Compares renderings with photos.
        alone_weight: Weight of the error of every context view warped alone into every other view (see
            `nas3r.training.objectives.alone`); 0 leaves it out (published).
        depth_prior: Weight of the mean squared logarithm of depth (of the context, whose geometric mean is
            about 1): keeps depth flat where and while the images do not speak; 0 leaves it out (published).
        matching_weight: Weight of what a model that learns to match learns that from. Nothing else reaches
            those parameters: it only matters to the length at which gradients are clipped. 0 leaves them as
            they are in the weights that the run starts from.
    """

    loss: PhotometricConfig = field(default_factory=PhotometricConfig)
    alone_weight: float = 0.0
    depth_prior: float = 0.0
    matching_weight: float = 0.03

    def needs_labels(self, config: ModelConfig) -> bool:
        """Whether batches must be labelled: a network may ask for intrinsics; poses and depth stay unseen."""
        return config.needs_intrinsics

    def prepare(self, model: NAS3R) -> None:
        """Freezes what this objective leaves as it is."""
        if self.matching_weight == 0:
            freeze_matching(model)

    def make_step(self, config: ModelConfig, step: StepConfig, device: torch.device) -> StepFunction:
        """The loss of a batch.

        Raises:
            ValueError: If the perceptual term lacks its weights.
        """
        loss = PhotometricLoss(self.loss).to(device)

        def with_intrinsics(model: nn.Module, batch: LabelledBatch, progress: float) -> StepOutput:
            intrinsics = batch.cameras.intrinsics
            return photometric_step(
                model, batch.views, loss, self, step, progress=progress, intrinsics=intrinsics
            )

        def from_pixels(model: nn.Module, batch: ViewBatch, progress: float) -> StepOutput:
            return photometric_step(model, batch, loss, self, step, progress=progress)

        return with_intrinsics if self.needs_labels(config) else from_pixels

    def describe(self) -> str:
        """The loss in a few words; names the perceptual term, because not every run can use LPIPS."""
        levels = self.loss.pyramid_levels
        terms = ["MSE" if levels == 1 else f"MSE on {levels} scales"]
        if self.loss.perceptual != "none":
            terms.append(f"{self.loss.gamma:g} x {_PERCEPTUAL[self.loss.perceptual]}")
        return " + ".join(terms)


def photometric_step(
    model: nn.Module,
    batch: ViewBatch,
    loss: PhotometricLoss,
    objective: Photometric,
    step: StepConfig,
    *,
    progress: float = 1.0,
    intrinsics: Float[Tensor, "b v 3 3"] | None = None,
) -> StepOutput:
    """Self-supervised loss of a batch: images alone decide.

    Args:
        model: A `NAS3R`, possibly wrapped for several processes.
        batch: Views.
        loss: Compares renderings with photos.
        objective: Weights of the terms.
        step: How to compute it.
        progress: Fraction of the training done.
        intrinsics: Known normalised intrinsics of all views, for models that take them.
    """
    prediction, factor = replace_non_finite(predict(model, batch, step, intrinsics))
    assert prediction.target_cameras is not None
    rendering = render(prediction.gaussians, prediction.target_cameras, *batch.target.shape[-2:])
    terms = loss(rendering.color, batch.target, progress)
    total = terms["loss"]
    if objective.alone_weight > 0:
        alone = alone_loss(prediction, batch, loss, progress)
        terms["alone"] = alone.detach()
        total = total + objective.alone_weight * alone
    if objective.depth_prior > 0:
        total = total + objective.depth_prior * prediction.depth.clamp_min(1e-6).log().square().mean()
    total = add_matching(total, terms, prediction, objective.matching_weight) * factor
    terms["psnr"] = image_psnr(rendering.color.detach(), batch.target).mean()
    terms["loss"] = total.detach()
    return StepOutput(total, terms, prediction, rendering)
