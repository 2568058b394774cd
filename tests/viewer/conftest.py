"""A small saved result: a synthetic world with its true cameras and depth."""

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

SIZE = 32


def make_result(views: int = 3, size: int = SIZE) -> Reconstruction:
    posed = SyntheticScenes(seed=3)[0].read([4 * i for i in range(views)], size, size)
    cameras = Cameras(relative_to_first(posed.cameras.world_from_camera), posed.cameras.intrinsics)
    assert posed.depth is not None
    gaussians, _ = lift_depth(posed.images, posed.depth, cameras)
    photos = [
        View(
            f"frame {i}",
            f"frame_{i}.png",
            None,
            (image * 255).round().byte().permute(1, 2, 0).numpy().astype(np.uint8),
            Resize(size, size, size, size),
            1.0,
        )
        for i, image in enumerate(posed.images)
    ]
    return Reconstruction(cameras, posed.depth, gaussians, posed.images, photos, None, Record(weights=None))


@pytest.fixture(scope="session")
def saved_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder that tests must not change."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("viewer") / "result"
    make_result().save(folder, exports=[])
    return folder
