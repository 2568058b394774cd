"""A small saved result."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nas3r.data.synthetic import SyntheticScenes
from nas3r.geometry import Cameras, relative_to_first
from nas3r.io.images import Resize
from nas3r.reconstruction import Reconstruction, Record
from nas3r.reconstruction.views import View
from nas3r.refine import lift_depth
from two_layer_world import photos, short_fits, weights, world

__all__ = ["photos", "short_fits", "weights", "world"]


@pytest.fixture(scope="session")
def saved_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    size = 16
    posed = SyntheticScenes(seed=3)[0].read([0, 4], size, size)
    cameras = Cameras(relative_to_first(posed.cameras.world_from_camera), posed.cameras.intrinsics)
    assert posed.depth is not None
    gaussians, _ = lift_depth(posed.images, posed.depth, cameras)
    images = (posed.images * 255).round().byte().permute(0, 2, 3, 1).numpy().astype(np.uint8)
    resize = Resize(size, size, size, size)
    views = [View(f"{i}", f"{i}.png", None, image, resize, 1.0) for i, image in enumerate(images)]
    result = Reconstruction(cameras, posed.depth, gaussians, posed.images, views, None, Record(weights=None))
    folder = tmp_path_factory.mktemp("result") / "out"
    result.save(folder, exports=[])
    return folder
