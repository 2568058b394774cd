"""Lens distortion against OpenCV, and the removal of it."""

import numpy as np
import pytest
import torch

from nas3r.data.posed_sources.distortion import (
    Distortion,
    brown,
    largest_displacement,
    straightening,
    undistorted_intrinsics,
)

cv2 = pytest.importorskip("cv2")

INTRINSICS = torch.tensor([[0.9, 0, 0.52], [0, 1.2, 0.47], [0, 0, 1]], dtype=torch.float64)
BROWN = Distortion("brown", (-0.12, 0.03, 0.002, -0.001, 0.01, 0.02, -0.01, 0.003))
FISHEYE = Distortion("fisheye", (0.05, -0.02, 0.004, -0.001))


def rays(count: int = 50) -> torch.Tensor:
    return torch.rand(count, 2, dtype=torch.float64) - 0.5


def test_brown_is_opencvs():
    xy = rays()
    points = torch.cat([xy, torch.ones(50, 1, dtype=torch.float64)], -1).numpy()
    k1, k2, p1, p2, *rest = BROWN.coefficients
    expected, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), np.eye(3), np.array([k1, k2, p1, p2, *rest])
    )
    np.testing.assert_allclose(BROWN.apply(xy), expected[:, 0], atol=1e-12)  # same formula in float64


def test_fisheye_is_opencvs():
    xy = rays()
    expected = cv2.fisheye.distortPoints(xy.numpy()[:, None], np.eye(3), np.array(FISHEYE.coefficients))
    np.testing.assert_allclose(FISHEYE.apply(xy), expected[:, 0], atol=1e-12)  # same formula in float64


@pytest.mark.parametrize("distortion", [BROWN, FISHEYE, brown([0.06, -0.08, -0.001, 0.0002])])
def test_undistorted_image_has_no_holes(distortion):
    straight = straightening(distortion, INTRINSICS, 80, 60)
    assert straight is not None
    # The outermost pixel centres lie half a pixel inside; the zoom is tight to 1e-4.
    assert float(straight.grid.abs().max()) <= 1
    assert straight.new_intrinsics[0, 0] >= INTRINSICS[0, 0]


def test_undistort_is_opencvs():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 255, (60, 80, 3)).astype(np.uint8), (0, 0), 2)
    straight = straightening(BROWN, INTRINSICS, 80, 60)
    assert straight is not None
    scale = torch.tensor([80.0, 60.0, 1.0])[:, None]
    k, new = (INTRINSICS * scale).numpy(), (straight.new_intrinsics * scale).numpy()
    k[:2, 2] -= 0.5  # OpenCV's pixel centres are at whole numbers
    new[:2, 2] -= 0.5
    expected = cv2.undistort(image, k, np.array(BROWN.coefficients), newCameraMatrix=new).astype(int)
    # OpenCV rounds positions to 1/32 px; the blurred image changes by less than 25 levels a pixel.
    np.testing.assert_allclose(straight.apply(image).astype(int)[2:-2, 2:-2], expected[2:-2, 2:-2], atol=2)


def test_depth_and_colour_are_straightened_alike():
    straight = straightening(BROWN, INTRINSICS, 80, 60)
    assert straight is not None
    at = straight.source(torch.tensor([[40.5 / 80, 30.5 / 60]], dtype=torch.float64))
    torch.testing.assert_close(2 * at[0].float() - 1, straight.grid[30, 40])


def test_displacement_in_pixels():
    only_radial = Distortion("brown", (0.1,))
    centred = torch.tensor([[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]])
    # At the corner r^2 = 0.5, so (x, y) = (0.5, 0.5) moves by 0.1 * 0.5 of itself: 2.5 px in each of 100.
    expected = 0.025 * 100 * 2**0.5
    assert largest_displacement(only_radial, centred, 100, 100) == pytest.approx(expected, rel=1e-6)


def test_zero_and_nonsense():
    assert brown([0.0, 0.0, 0.0, 0.0]) is None
    assert straightening(None, INTRINSICS, 80, 60) is None
    assert straightening(Distortion("brown", (1e-4,)), INTRINSICS, 80, 60) is None
    with pytest.raises(ValueError, match="at most 4"):
        Distortion("fisheye", (1, 2, 3, 4, 5))
    with pytest.raises(ValueError, match="does not fit"):
        undistorted_intrinsics(Distortion("brown", (0.0, 0.0, 5.0, 5.0)), INTRINSICS)
