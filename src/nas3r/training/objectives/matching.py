"""Learning nothing but what views are matched by: single images, warped in known ways, are all it takes."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.data.clips import ViewBatch
from nas3r.models import NAS3R, ModelConfig
from nas3r.models.poses import Solved
from nas3r.training.step import StepConfig, StepFunction, StepOutput


@dataclass(frozen=True)
class Matching:
    """Views should be found again in views warped; nothing is predicted or rendered.

    Attributes:
        learns: "features" of cells learn from images warped as planes are. "across" is attention across two
            views, on top of features that stay as they are: it learns from images on relief, seen by two
            cameras.
    """

    learns: Literal["features", "across"] = "features"

    def needs_labels(self, config: ModelConfig) -> bool:
        """Never."""
        return False

    def prepare(self, model: NAS3R) -> None:
        """Freezes nothing: no gradient reaches the rest, and recipes set its learning rate to 0."""

    def make_step(self, config: ModelConfig, step: StepConfig, device: torch.device) -> StepFunction:
        """The loss of a batch.

        Raises:
            ValueError: If the network learns nothing to match by.
        """
        if not (isinstance(config.poses, Solved) and config.poses.features.learnt):
            raise ValueError("matching: expected a model that learns what to match by")
        if self.learns == "across" and config.poses.features.across is None:
            raise ValueError("matching: expected a model that looks across views")

        def on_warps(model: nn.Module, batch: ViewBatch, progress: float) -> StepOutput:
            if not isinstance(model, NAS3R):
                raise ValueError("matching: expected a single process; start it without torchrun")
            return matching_step(model, batch, self.learns)

        return on_warps

    def describe(self) -> str:
        """The loss in a few words."""
        return "on matches in warped images" if self.learns == "features" else "on matches across relief"


def matching_step(
    model: NAS3R, batch: ViewBatch, learns: Literal["features", "across"] = "features"
) -> StepOutput:
    """What is learnt from known warps of every view (`known_warps` and `relief` of `nas3r.matching`).

    Args:
        model: One that learns what to match by.
        batch: Views; that they show the same scene does not matter.
        learns: See `Matching`.
    """
    matcher = model.poses.view_matcher
    assert matcher is not None
    images = torch.cat([batch.context, batch.target], 1).flatten(0, 1)
    loss = matcher.across_loss(images) if learns == "across" else matcher.matching_loss(halved(images))
    return StepOutput(loss, {"loss": loss.detach()}, None, None)


def halved(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h/2 w/2"]:
    """The images at half their size, or a part of them as it is: what is learnt should serve both."""
    height, width = (n // 2 for n in images.shape[-2:])
    if torch.rand(()) < 0.5:
        return F.interpolate(images, (height, width), mode="area")
    top, left = int(torch.randint(height + 1, ())), int(torch.randint(width + 1, ()))
    return images[..., top : top + height, left : left + width]
