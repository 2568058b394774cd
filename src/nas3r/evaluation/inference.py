"""A model as the evaluation runs it: which views it is given, and when."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.posed import PosedViews
from nas3r.evaluation.protocols import Protocol, ViewSet
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.models import NAS3R, Prediction, infer
from nas3r.render import render

# The official rasteriser culls at z <= 0.2 in a unit in which the near plane is at 1; its near plane is 0.1
# over the TRUE distance of the outer context cameras.
_PUBLISHED_NEAR = 0.2 * 0.1


@dataclass(frozen=True)
class TargetView:
    """What the model says about one target.

    Attributes:
        prediction: Of the context, in the pass that found this target.
        camera: Of the target, [1, 1, ...].
    """

    prediction: Prediction
    camera: Cameras


class Inference:
    """Runs a model on view sets.

    Args:
        model: In eval mode.
        protocol: "published" culls Gaussians at a distance that depends on the true baseline.
        given_intrinsics: Whether the model is told the true intrinsics also if it can do without.
    """

    def __init__(
        self, model: NAS3R, protocol: Protocol = "default", *, given_intrinsics: bool = False
    ) -> None:
        self.model = model
        self.protocol = protocol
        self.given_intrinsics = given_intrinsics or model.config.needs_intrinsics
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def reconstruct(self, views: PosedViews, view_set: ViewSet) -> Prediction:
        """Cameras, depth and Gaussians from the context alone."""
        images, intrinsics = self._context(views, view_set)
        return infer(self.model, images, intrinsics).prediction.to("cpu")

    @torch.no_grad()
    def locate(self, views: PosedViews, view_set: ViewSet) -> list[TargetView]:
        """Every target's camera, each found on its own.

        Models whose context cannot depend on a target (all of ours) run the context once; the others, such as
        official checkpoints, run it with each target, as they were evaluated.
        """
        images, intrinsics = self._context(views, view_set)
        count = len(view_set.context)
        targets = views.images[count:, None].to(self.device)  # [t, 1, 3, h, w]
        target_intrinsics = self._intrinsics(views, slice(count, None))
        if self.model.leak_proof:
            scene = infer(self.model, images, intrinsics)
            prediction = scene.prediction.to("cpu")
            cameras = scene.locate(targets.transpose(0, 1), target_intrinsics).to("cpu")
            return [TargetView(prediction, cameras.views([i])) for i in range(len(targets))]
        out = []
        for i, target in enumerate(targets):
            own = None if target_intrinsics is None else target_intrinsics[:, i : i + 1]
            prediction = self.model(images, target[None], intrinsics, own).to("cpu")
            out.append(TargetView(prediction, prediction.target_cameras))
        return out

    def render(
        self, gaussians: Gaussians, camera: Cameras, height: int, width: int, near: float
    ) -> Float[Tensor, "3 h w"]:
        """One image on a black background, not clipped."""
        color = render(gaussians.to(self.device), camera.to(self.device), height, width, near=near).color
        return color[0, 0].to("cpu")

    def near(self, views: PosedViews, view_set: ViewSet) -> float:
        """z-depth at which Gaussians are culled."""
        if self.protocol == "default":
            return 0.01
        centers = views.cameras.centers[0]
        return _PUBLISHED_NEAR / float((centers[0] - centers[len(view_set.context) - 1]).norm())

    def _context(self, views: PosedViews, view_set: ViewSet) -> tuple[Tensor, Tensor | None]:
        count = len(view_set.context)
        return views.images[None, :count].to(self.device), self._intrinsics(views, slice(count))

    def _intrinsics(self, views: PosedViews, which: slice) -> Tensor | None:
        """True intrinsics, if the model is told them."""
        if not self.given_intrinsics:
            return None
        return views.cameras.intrinsics[:, which].to(self.device)
