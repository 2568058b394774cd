"""Image differences against the published numbers, scikit-image and torchmetrics."""

import zlib

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio

from nas3r.evaluation.nvs import psnr, ssim


def unit(key: str, count: int) -> np.ndarray:
    """Reproducible values in [-1, 1), as the reference fixtures define them."""
    words = np.random.Philox(key=zlib.crc32(key.encode())).random_raw((count + 1) // 2)
    words = words.astype("<u8").view("<u4")[:count]
    return (words >> 8).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def test_published_psnr_and_ssim(reference_folder):
    stored = np.load(reference_folder / "modules" / "metrics.npz")
    a = (unit("input/psnr/a", 2 * 3 * 32 * 40).reshape(2, 3, 32, 40) + 1) / 2
    b = a + np.float32(0.1) * unit("input/psnr/b", 2 * 3 * 32 * 40).reshape(a.shape)
    first, second = torch.tensor(a), torch.tensor(b)
    # Stored in float32: 6e-8 relative, a few operations.
    np.testing.assert_allclose(psnr(first, second), stored["psnr"], rtol=1e-6)
    np.testing.assert_allclose(ssim(first, second), stored["ssim"], rtol=1e-6)


def test_ssim_is_scikit_images():
    a, b = torch.rand(3, 40, 33, dtype=torch.float64), torch.rand(3, 40, 33, dtype=torch.float64)
    expected = structural_similarity(
        a.numpy(), b.numpy(), win_size=11, gaussian_weights=True, channel_axis=0, data_range=1.0
    )
    assert float(ssim(a, b)) == pytest.approx(float(expected), abs=1e-12)  # same formula in float64


def test_psnr_is_torchmetrics():
    a, b = torch.rand(2, 3, 16, 16, dtype=torch.float64), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    for i in range(2):
        expected = peak_signal_noise_ratio(a[i], b[i], data_range=1.0)
        assert float(psnr(a, b)[i]) == pytest.approx(float(expected), abs=1e-6)


def test_psnr_clips_and_equal_images_are_infinite():
    image = torch.rand(3, 8, 8)
    assert float(psnr(image, image)) == float("inf")
    white = torch.ones(3, 8, 8)
    assert float(psnr(white * 1.5, white)) == float("inf")
    assert float(psnr(white - 0.1, white)) == pytest.approx(20, abs=1e-5)  # float32 input


def test_ssim_names_small_images():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(torch.rand(3, 10, 20), torch.rand(3, 10, 20))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="psnr"):
        psnr(torch.rand(3, 8, 8), torch.rand(3, 8, 9))
