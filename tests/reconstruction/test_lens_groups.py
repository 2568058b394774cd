"""Which photos were taken with one lens, and what is expected of its focal length."""

import numpy as np
import pytest
import torch

from nas3r.geometry import Cameras
from nas3r.io.images import Resize
from nas3r.reconstruction.focal_lengths import KnownIntrinsics
from nas3r.reconstruction.lens_groups import FOCAL_SPREAD, LensGroups, intrinsics_of_others
from nas3r.reconstruction.photos import View


def photo(camera: str | None = None, size: tuple[int, int] = (640, 480)) -> View:
    return View("a.jpg", "a.jpg", None, None, Resize(*size, 128, 96, exact=True), 1.0, camera=camera)


def told(*focal: float | None) -> KnownIntrinsics:
    matrices = torch.eye(3).repeat(1, len(focal), 1, 1)
    matrices[0, :, 0, 0] = torch.tensor([1.0 if f is None else f for f in focal])
    return KnownIntrinsics(matrices, "exif", guessed=np.array([f is None for f in focal]))


NOTHING = KnownIntrinsics(None, "predicted")


def test_photos_of_one_camera_have_one_lens() -> None:
    groups = LensGroups.of([photo("A"), photo("B"), photo("A"), photo("A", (800, 480))], NOTHING)
    assert groups.of_view.tolist() == [0, 1, 0, 2]
    assert groups.spread == (FOCAL_SPREAD["predicted"],) * 3


def test_told_focal_lengths_tell_zooms_apart() -> None:
    groups = LensGroups.of([photo("A")] * 5, told(0.8, 1.6, 0.805, None, None))
    assert groups.of_view.tolist() == [0, 1, 0, 2, 2]
    assert groups.spread == (FOCAL_SPREAD["exif"], FOCAL_SPREAD["exif"], FOCAL_SPREAD["predicted"])
    some = groups.keep([1, 3])
    assert some.of_view.tolist() == [0, 1]
    assert some.spread == (FOCAL_SPREAD["exif"], FOCAL_SPREAD["predicted"])


def test_further_photos_have_the_lens_of_their_camera() -> None:
    views = [photo("A"), photo("B")]
    cameras = Cameras(torch.eye(4).repeat(1, 2, 1, 1), torch.eye(3).repeat(1, 2, 1, 1))
    cameras.intrinsics[0, :, 0, 0] = torch.tensor([0.7, 1.4])
    others = [photo("B"), photo("C"), photo("C"), photo("C")]
    found = intrinsics_of_others(others, told(None, None, 1.45, 3.0), views, cameras)[:, 0, 0]
    assert found[0] == pytest.approx(1.4)
    assert found[1].isnan()
    assert found[2:].tolist() == pytest.approx([1.4, 3.0])
