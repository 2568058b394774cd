"""Pictures of a two-layer world, and random weights: enough for everything but quality."""

import numpy as np
import pytest
from PIL import Image

from nas3r.models import NAS3R, presets, save


def texture(seed, height, width):
    """Smooth random colours with detail at several scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (6, 14, 34, 80):
        coarse = rng.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
        total += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), float)
    return (total / 4).clip(0, 255).astype(np.uint8)


class World:
    """A far wall and a near square in front of it, seen from places along a line."""

    def __init__(self, seed=0, height=120, width=160):
        self.height, self.width = height, width
        self.far = texture(seed, height, 3 * width)
        self.near = texture(seed + 1, 2 * height // 3, 2 * width // 3)

    def frame(self, place, parallax=2.0):
        """What a camera sees that moved by `place` far-wall pixels."""
        start = self.width + round(place)
        image = self.far[:, start : start + self.width].copy()
        left = round(self.width / 6 - place * parallax)
        top, (h, w) = self.height // 6, self.near.shape[:2]
        a, b = max(left, 0), min(left + w, self.width)
        if a < b:
            image[top : top + h, a:b] = self.near[:, a - left : b - left]
        return image


@pytest.fixture(scope="session")
def world():
    return World()


@pytest.fixture(scope="session")
def other_world():
    return World(seed=50)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A weights file of a small random model."""
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(NAS3R(presets.get("tiny")), path)
    return path


@pytest.fixture(autouse=True)
def short_fits(monkeypatch):
    """Gaussians are fitted in a few steps; what more of them gain is tested elsewhere."""
    monkeypatch.setattr("nas3r.reconstruction.dense.FITTING", {"standard": (3, 20.0), "best": (5, 20.0)})


@pytest.fixture
def photos(tmp_path, world):
    """A folder of four JPEG photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(world.frame(6 * i)).save(folder / f"photo_{i + 1}.jpg", quality=95)
    return folder
