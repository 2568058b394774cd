"""Batches with labels, for networks that are given intrinsics and for supervision by them."""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.loaders.plan import BatchPlan, Request
from nas3r.data.order import ClipOrder, ShuffledOrder
from nas3r.data.posed import LabelledBatch, PosedScene, PosedSource, PosedViews
from nas3r.geometry import Cameras

SCENES_KEPT = 512  # opened scenes kept at hand; their images are read anew


class LabelledLoader:
    """Gives the labelled batch of any step, as planned: drawn as self-supervised training draws.

    Args:
        source: Posed scenes; the order of views in a scene is taken as time.
        plan: Which views of which scenes.
        height: Of the images in pixels.
        width: Likewise.

    Raises:
        ValueError: If there is no scene.
    """

    def __init__(self, source: PosedSource, plan: BatchPlan, height: int, width: int) -> None:
        if len(source) == 0:
            raise ValueError("there is no posed scene to train on")
        self.plan, self.rejected = plan, plan.rejected
        self._height, self._width = height, width
        order = source if isinstance(source, ClipOrder) else ShuffledOrder(len(source))
        self._choose = plan.in_order(order)
        self._scene = lru_cache(maxsize=SCENES_KEPT)(source.__getitem__)

    def batch(self, step: int) -> LabelledBatch:
        """This process's part of the batch of a step.

        Raises:
            ValueError: If no scene has room for the views.
        """
        context, target = self.plan.kept(step)

        def read(request: Request, scene: PosedScene) -> PosedViews:
            frames = [request.frames[i] for i in (*context, *target)]
            views = scene.read(frames, self._height, self._width)
            return mirrored(views) if request.flip else views

        samples = [self.plan.draw(step, place, self._choose, self._scene, read) for place in self.plan.places]
        images = torch.stack([s.images for s in samples])
        cameras = Cameras(
            torch.cat([s.cameras.world_from_camera for s in samples]),
            torch.cat([s.cameras.intrinsics for s in samples]),
        )
        n = len(context)
        depth = torch.stack([_known_depth(s)[:n] for s in samples])
        return LabelledBatch(images[:, :n], images[:, n:], cameras, depth)


def mirrored(views: PosedViews) -> PosedViews:
    """The scene in a mirror: images flipped, x negated in the world and in every camera."""
    sign = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    pose = views.cameras.world_from_camera * sign[:, None] * sign
    k = views.cameras.intrinsics.clone()
    k[..., 0, 2] = 1 - k[..., 0, 2]
    depth = None if views.depth is None else views.depth.flip(-1)
    return PosedViews(views.name, views.images.flip(-1), Cameras(pose, k), depth)


def _known_depth(views: PosedViews) -> Float[Tensor, "v h w"]:
    """Depth, or zeros (unknown everywhere) where the data has none."""
    if views.depth is not None:
        return views.depth
    return torch.zeros(len(views.images), *views.images.shape[-2:])
