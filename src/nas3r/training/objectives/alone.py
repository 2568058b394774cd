"""Each context view alone, seen from all the others: a signal for geometry that blending cannot satisfy."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.data.clips import ViewBatch
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.losses import PhotometricLoss
from nas3r.models import Prediction
from nas3r.render import render

_OPACITY = 0.9
_SIGMA = 0.6  # standard deviation over the spacing of the Gaussians: no holes, little blur


def alone_loss(
    prediction: Prediction, batch: ViewBatch, loss: PhotometricLoss, progress: float
) -> Float[Tensor, ""]:
    """Photometric error of every context view warped alone into every other view.

    With all context views together, a target is explained well by making Gaussians small or transparent and
    averaging the context images, and training rests there. One view alone cannot average. Its Gaussians here
    have the pixels' own colours and fixed opacities and sizes, so that gradients reach poses, focal lengths
    and depth and nothing else. Pixels count as far as they are covered. This is the view-synthesis signal of
    Zhou et al., "Unsupervised Learning of Depth and Ego-Motion from Video", CVPR 2017, sec. 3.1, with
    splatting in place of sampling.

    Args:
        prediction: With target cameras.
        batch: The views it was made of.
        loss: Compares renderings with photos.
        progress: Fraction of the training done.
    """
    assert prediction.target_cameras is not None
    v, _, height, width = batch.context.shape[1:]
    views = Cameras.cat([prediction.cameras, prediction.target_cameras])
    photos = torch.cat([batch.context, batch.target], 1)
    others = torch.tensor([[j for j in range(photos.shape[1]) if j != i] for i in range(v)])
    others = others.to(photos.device)
    cameras = Cameras(
        views.world_from_camera[:, others].flatten(0, 1), views.intrinsics[:, others].flatten(0, 1)
    )
    rendering = render(_solid(prediction, batch.context), cameras, height, width)
    covered = rendering.alpha.detach()[:, :, None]
    return loss(rendering.color, covered * photos[:, others].flatten(0, 1), progress)["loss"]


def _solid(prediction: Prediction, context: Float[Tensor, "b v 3 h w"]) -> Gaussians:
    """The Gaussians of each view as a set of its own [b v, n]: opaque, and as large as squares."""
    v, _, h, w = context.shape[1:]
    means = prediction.surface.means.unflatten(1, (v, -1)).flatten(0, 1)
    side = round((h * w / means.shape[1]) ** 0.5)
    colors = F.avg_pool2d(context.flatten(0, 1), side).flatten(2).mT
    depth = F.avg_pool2d(prediction.depth.flatten(0, 1)[:, None], side).flatten(2).mT
    focal_squares = prediction.cameras.intrinsics[..., 1, 1].flatten()[:, None, None] * (h // side)
    sigma = (_SIGMA * depth.clamp_min(1e-3) / focal_squares).detach().float()
    return Gaussians.spheres(means, sigma[..., 0], colors, _OPACITY)
