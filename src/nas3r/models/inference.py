"""A network put to use: what it says of a scene, and the stages that follow if its config asks for them."""

import dataclasses
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from nas3r.consistency import Surfaces, compare_views
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.models.nas3r import NAS3R, Context
from nas3r.models.prediction import Prediction


@dataclass(frozen=True)
class Inferred:
    """A scene as a network sees it, and the network itself, which finds other images in it.

    Attributes:
        model: The network.
        context: The views after the network.
        prediction: Cameras, depth and Gaussians after all stages.
        uncompared: The same before views were compared.
    """

    model: NAS3R
    context: Context
    prediction: Prediction
    uncompared: Prediction

    def locate(
        self, images: Float[Tensor, "b t 3 h w"], intrinsics: Float[Tensor, "b t 3 3"] | None = None
    ) -> Cameras:
        """Cameras of new images in the scene's frame; see `NAS3R.locate`."""
        compared = self.prediction.depth if self.model.config.compare_views else None
        return self.model.locate(self.context, images, intrinsics, compared)


def infer(
    model: NAS3R, images: Float[Tensor, "b v 3 h w"], intrinsics: Float[Tensor, "b v 3 3"] | None = None
) -> Inferred:
    """What a network says of a scene; views are compared where its config asks for it.

    Args:
        model: In eval mode.
        images: See `NAS3R.encode_context`.
        intrinsics: Likewise.

    Raises:
        ValueError: For images of an unusable shape, or intrinsics missing or not wanted.
    """
    context = model.encode_context(images, intrinsics)
    uncompared = prediction = model.predict(context)
    if model.config.compare_views:
        prediction = compared(prediction, images)
    return Inferred(model, context, prediction, uncompared)


def infer_with_targets(
    model: NAS3R,
    images: Float[Tensor, "b v 3 h w"],
    targets: Float[Tensor, "b t 3 h w"],
    intrinsics: Float[Tensor, "b v 3 3"] | None = None,
    target_intrinsics: Float[Tensor, "b t 3 3"] | None = None,
) -> Prediction:
    """The same with cameras of targets, for any model, also one whose context depends on a target.

    Args:
        model: In eval mode.
        images: Context views.
        targets: Views to be located.
        intrinsics: Of the context.
        target_intrinsics: Of the targets.
    """
    if not model.leak_proof:
        return model(images, targets, intrinsics, target_intrinsics)
    scene = infer(model, images, intrinsics)
    return dataclasses.replace(scene.prediction, target_cameras=scene.locate(targets, target_intrinsics))


def compared(prediction: Prediction, images: Float[Tensor, "b v 3 h w"]) -> Prediction:
    """A prediction after its views were compared, see `nas3r.consistency`."""
    surfaces = Surfaces(prediction.depth, prediction.surface, prediction.backdrop)
    surfaces = compare_views(images.float(), prediction.cameras, surfaces)
    gaussians = surfaces.gaussians
    if surfaces.backdrop is not None:
        gaussians = Gaussians.cat([gaussians, surfaces.backdrop])
    return dataclasses.replace(prediction, depth=surfaces.depth, gaussians=gaussians)
