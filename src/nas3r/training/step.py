"""One training step: predict the scene from the context, render it into the targets, compare."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.data.clips import ViewBatch
from nas3r.geometry import Cameras
from nas3r.losses import PhotometricLoss, image_psnr
from nas3r.models import Prediction
from nas3r.render import Rendering, render
from nas3r.training.alone import alone_loss
from nas3r.training.config import StepConfig
from nas3r.training.finite import replace_non_finite


@dataclass(frozen=True)
class StepOutput:
    """What a step computed.

    Attributes:
        loss: Scalar to differentiate.
        terms: Scalars to log, detached: the loss's terms and "psnr" of the targets.
        prediction: Of the network; None where only matching is learnt.
        rendering: Of the target views; None where nothing was rendered.
    """

    loss: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]
    prediction: Prediction | None
    rendering: Rendering | None


def predict(
    model: nn.Module,
    batch: ViewBatch,
    config: StepConfig,
    intrinsics: Float[Tensor, "b v 3 3"] | None = None,
) -> Prediction:
    """Context and target views through the network, in bfloat16 where configured.

    Args:
        model: A `NAS3R`, possibly wrapped for several processes.
        batch: Views.
        config: Whether to autocast.
        intrinsics: Known normalised intrinsics of the context and then the target views, for `-I` models.
    """
    device = batch.context.device.type
    num_context = batch.context.shape[1]
    given = None if intrinsics is None else intrinsics[:, :num_context]
    given_target = None if intrinsics is None else intrinsics[:, num_context:]
    with torch.autocast(device, torch.bfloat16, enabled=config.autocast and device == "cuda"):
        return model(batch.context, batch.target, given, given_target)


def add_matching(
    total: Float[Tensor, ""], terms: dict[str, Tensor], prediction: Prediction, config: StepConfig
) -> Float[Tensor, ""]:
    """The loss with what the model learns matching from, if it does; adds "matching" to the terms."""
    if prediction.matching_loss is None:
        return total
    terms["matching"] = prediction.matching_loss.detach()
    return total + config.matching_weight * prediction.matching_loss


def photometric_step(
    model: nn.Module,
    batch: ViewBatch,
    loss: PhotometricLoss,
    config: StepConfig,
    *,
    progress: float = 1.0,
    intrinsics: Float[Tensor, "b v 3 3"] | None = None,
) -> StepOutput:
    """Self-supervised loss of a batch: images alone decide.

    Args:
        model: A `NAS3R`, possibly wrapped for several processes.
        batch: Views.
        loss: Compares renderings with photos.
        config: Options of the step.
        progress: Fraction of the training done.
        intrinsics: Known normalised intrinsics of all views, for models that take them.
    """
    prediction, factor = replace_non_finite(predict(model, batch, config, intrinsics))
    assert prediction.target_cameras is not None
    height, width = batch.target.shape[-2:]
    num_targets = batch.target.shape[1]
    cameras = prediction.target_cameras
    if config.context_weight > 0:
        cameras = Cameras.cat([cameras, prediction.cameras])
    rendering = render(prediction.gaussians, cameras, height, width)
    color = rendering.color[:, :num_targets]
    terms = loss(color, batch.target, progress)
    total = terms["loss"]
    if config.context_weight > 0:
        context = loss(rendering.color[:, num_targets:], batch.context, progress)
        terms["context"] = context["loss"].detach()
        total = total + config.context_weight * context["loss"]
    if config.alone_weight > 0:
        alone = alone_loss(prediction, batch, loss, progress)
        terms["alone"] = alone.detach()
        total = total + config.alone_weight * alone
    if config.depth_prior > 0:
        total = total + config.depth_prior * prediction.depth.clamp_min(1e-6).log().square().mean()
    total = add_matching(total, terms, prediction, config) * factor
    terms["psnr"] = image_psnr(color.detach(), batch.target).mean()
    terms["loss"] = total.detach()
    targets = Rendering(color, rendering.depth[:, :num_targets], rendering.alpha[:, :num_targets])
    return StepOutput(total, terms, prediction, targets)
