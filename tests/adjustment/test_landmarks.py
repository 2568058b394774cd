"""Photos found among points: which point a keypoint looks like."""

import numpy as np
import pytest

from nas3r.adjustment import Keypoints, Landmarks
from nas3r.adjustment import landmarks as module


def test_parts_find_what_the_whole_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    of_point = np.sort(random.integers(0, 60, 400))
    places = np.abs(random.normal(size=(60, 128)))
    looks = np.abs(places[of_point] + 0.1 * random.normal(size=(400, 128)))
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    landmarks = Landmarks(np.zeros((60, 3)), of_point, np.round(255 * looks).astype(np.uint8))
    mine = np.abs(places[random.integers(0, 60, 100)] + 0.3 * random.normal(size=(100, 128)))
    mine /= np.linalg.norm(mine, axis=1, keepdims=True)
    keypoints = Keypoints(np.zeros((100, 2)), mine.astype(np.float32), np.ones(100))
    whole = landmarks._matched(keypoints)
    assert len(whole[0]) > 20
    monkeypatch.setattr(module, "_AT_ONCE", 37)
    for found, expected in zip(landmarks._matched(keypoints), whole, strict=True):
        assert (found == expected).all()
    # The slow twin: all looks of all points, one keypoint at a time.
    for keypoint, point in zip(*whole, strict=True):
        alike = mine[keypoint] @ landmarks.descriptors.T / 255
        assert of_point[alike.argmax()] == point
        assert 1 - alike.max() < 0.85**2 * (1 - alike[of_point != point].max()) + 1e-6
