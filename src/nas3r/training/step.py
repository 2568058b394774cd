"""What every step of training has in common, whatever it learns from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.data.clips import ViewBatch
from nas3r.models import NAS3R, Prediction
from nas3r.render import Rendering


@dataclass(frozen=True)
class StepConfig:
    """How a step is computed; the objective says what.

    Attributes:
        autocast: bfloat16 in the network on CUDA; geometry and renderer stay in float32.
        checkpointing: Trade time for memory: recompute activations in the backward pass.
    """

    autocast: bool = True
    checkpointing: bool = False


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


# Loss of a batch. Takes the model (possibly wrapped for several processes), the batch and the fraction of the
# training done.
StepFunction = Callable[[nn.Module, Any, float], StepOutput]


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
    total: Float[Tensor, ""], terms: dict[str, Tensor], prediction: Prediction, weight: float
) -> Float[Tensor, ""]:
    """The loss with what the model learns matching from, if it does; adds "matching" to the terms."""
    if prediction.matching_loss is None:
        return total
    terms["matching"] = prediction.matching_loss.detach()
    return total + weight * prediction.matching_loss


def freeze_matching(model: NAS3R) -> None:
    """Leaves what views are matched by as it is, which also saves computing what it would learn from."""
    if (matcher := model.poses.view_matcher) is not None:
        matcher.coarse.requires_grad_(False)
