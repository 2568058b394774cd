"""Objective of a run that learns nothing but what views are matched by: single images are all it takes."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.data.clips import ViewBatch
from nas3r.models import NAS3R
from nas3r.training.step import StepOutput


def matching_step(model: NAS3R, batch: ViewBatch) -> StepOutput:
    """What the features of cells learn from known warps (`nas3r.models.known_warps`), of every view.

    Args:
        model: One that learns what to match by.
        batch: Views; that they show the same scene does not matter.
    """
    assert model.solver is not None
    images = torch.cat([batch.context, batch.target], 1).flatten(0, 1)
    loss = model.solver.matching_loss(halved(images))
    return StepOutput(loss, {"loss": loss.detach()}, None, None)


def halved(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h/2 w/2"]:
    """The images at half their size, or a part of them as it is: what is learnt should serve both."""
    height, width = (n // 2 for n in images.shape[-2:])
    if torch.rand(()) < 0.5:
        return F.interpolate(images, (height, width), mode="area")
    top, left = int(torch.randint(height + 1, ())), int(torch.randint(width + 1, ()))
    return images[..., top : top + height, left : left + width]
