"""A model that knows the truth, and worlds that are cheap to look at."""

import dataclasses

import pytest
import torch

from nas3r.data.posed import PosedViews
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.evaluation.inference import Inference, TargetView
from nas3r.evaluation.protocols import ViewSet
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, unproject_depth
from nas3r.models import NAS3R, Prediction, presets

SIZE = 32

WORLDS = SyntheticConfig(
    families={"room": 1.0}, paths={"orbit": 1.0}, baseline=(0.5, 0.5), rotation=(10, 10), shake=0, frames=12
)


class Oracle(Inference):
    """Says the truth, in a world of its own that is turned, moved and three times as large."""

    def __init__(self, size: int = SIZE) -> None:
        config = dataclasses.replace(presets.get("tiny"), image_size=size)
        super().__init__(NAS3R(config).eval())

    def reconstruct(self, views: PosedViews, view_set: ViewSet) -> Prediction:
        count = len(view_set.context)
        cameras = _enlarged(views.cameras.views(slice(count)))
        assert views.depth is not None
        depth = 3 * views.depth[None, :count]
        points = unproject_depth(cameras, depth).reshape(1, -1, 3)
        colour = views.images[None, :count].permute(0, 1, 3, 4, 2).reshape(1, -1, 1, 3)
        footprint = (depth / cameras.intrinsics[..., 0, 0, None, None] / views.images.shape[-1]).flatten(1)
        gaussians = Gaussians(
            means=points,
            quats=torch.tensor([1.0, 0, 0, 0]).expand(1, points.shape[1], 4),
            scales=0.4 * footprint[..., None].expand(-1, -1, 3),
            opacities=torch.full(points.shape[:2], 0.95),
            sh=(colour - 0.5) / 0.28209479177387814,
        )
        return Prediction(cameras, depth, gaussians)

    def locate(self, views: PosedViews, view_set: ViewSet) -> list[TargetView]:
        prediction = self.reconstruct(views, view_set)
        targets = _enlarged(views.cameras.views(slice(len(view_set.context), None)))
        return [TargetView(prediction, targets.views([i])) for i in range(targets.num_views)]


def _enlarged(cameras: Cameras) -> Cameras:
    poses = cameras.world_from_camera.clone()
    poses[..., :3, 3] *= 3
    return Cameras(poses, cameras.intrinsics)


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="session")
def worlds() -> SyntheticScenes:
    return SyntheticScenes(seed=1, config=WORLDS, length=3)
