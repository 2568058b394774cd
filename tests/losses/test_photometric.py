from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from nas3r.losses import PhotometricConfig, PhotometricLoss, image_psnr
from nas3r.losses.photometric import level_weights, pyramid_mse
from nas3r.losses.structural import _blur, blur_by_convolution, gradient_difference, ssim, structural_distance


def _images(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(*shape, dtype=dtype)


def test_ssim_agrees_with_scikit_image_on_its_interior():
    a = _images(2, 3, 24, 31)
    b = (a + 0.2 * torch.randn_like(a)).clamp(0, 1)
    ours = ssim(a, b)
    for i in range(2):
        _, full = structural_similarity(
            a[i].permute(1, 2, 0).numpy(),
            b[i].permute(1, 2, 0).numpy(),
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            full=True,
        )
        # Ours has no padding: compare where the 11-pixel window lies inside the image. float64 round-off.
        assert ours[i].item() == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-10)


def test_ssim_gradient():
    a, b = _images(1, 3, 12, 13).requires_grad_(), _images(1, 3, 12, 13)
    assert torch.autograd.gradcheck(ssim, (a, b))


@pytest.mark.parametrize("size", [(11, 11), (12, 40), (37, 23)])
def test_compiled_blur_agrees_with_convolution(size):
    images = _images(2, 3, *size, dtype=torch.float32).requires_grad_()
    fast, slow = _blur(images), blur_by_convolution(images)
    upstream = torch.randn_like(slow)
    grads = [torch.autograd.grad(blurred, images, upstream)[0] for blurred in (fast, slow)]
    # Both add 22 products in float32, in another order.
    torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-6)


def test_ssim_names_images_smaller_than_its_window():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(_images(1, 3, 10, 20), _images(1, 3, 10, 20))


def test_gradient_difference_by_hand():
    a = torch.zeros(1, 3, 2, 3)
    b = torch.zeros(1, 3, 2, 3)
    b[0, :, 0, 0] = 1.0
    # Horizontally 1 of 4 differences is one, vertically 1 of 3.
    assert gradient_difference(a, b).item() == pytest.approx(1 / 4 + 1 / 3)


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (64, 64)])
def test_structural_distance_is_zero_only_for_equal_images(size):
    a = _images(2, 3, *size)
    assert structural_distance(a, a).abs().max() < 1e-12
    assert (structural_distance(a, a.flip(-1)) > 0.05).all()


@given(levels=st.integers(1, 5), until=st.floats(0.01, 1.0), progress=st.floats(0, 1))
def test_level_weights_fade_in_from_coarse_to_fine(levels, until, progress):
    weights = level_weights(levels, until, progress)
    assert weights[-1] == 1.0
    assert all(0 <= fine <= coarse <= 1 for fine, coarse in pairwise(weights))
    assert level_weights(levels, until, 1.0) == [1.0] * levels


def test_pyramid_mse_by_hand():
    a, b = _images(2, 3, 8, 8), _images(2, 3, 8, 8)
    half = [torch.from_numpy(x.numpy().reshape(2, 3, 4, 2, 4, 2).mean((3, 5))) for x in (a, b)]
    expected = (0.5 * ((a - b) ** 2).mean() + ((half[0] - half[1]) ** 2).mean()) / 1.5
    assert pyramid_mse(a, b, [0.5, 1.0]).item() == pytest.approx(expected.item())


def test_plain_loss_is_the_mean_squared_error():
    a, b = _images(2, 2, 3, 16, 16), _images(2, 2, 3, 16, 16)
    terms = PhotometricLoss(PhotometricConfig())(a, b)
    assert terms["loss"].item() == pytest.approx(((a - b) ** 2).mean().item())
    assert set(terms) == {"loss", "mse"}


def test_perceptual_term_is_weighted_by_gamma():
    a, b = _images(1, 2, 3, 24, 24), _images(1, 2, 3, 24, 24)
    terms = PhotometricLoss(PhotometricConfig(perceptual="ssim", gamma=0.3))(a, b)
    expected = terms["mse"] + 0.3 * structural_distance(a[0], b[0]).mean()
    assert terms["loss"].item() == pytest.approx(expected.item())


def test_psnr_clips_the_rendering():
    photo = torch.full((1, 3, 4, 4), 0.5)
    assert image_psnr(photo + 0.1, photo).item() == pytest.approx(20.0, abs=1e-4)  # 10 log10(1 / 0.01)
    white = torch.ones(1, 3, 4, 4)
    assert image_psnr(white * 1.7, white).item() == pytest.approx(100.0)  # floor of the error: 1e-10


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="perceptual"):
        PhotometricConfig(perceptual="vgg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pyramid_levels"):
        PhotometricConfig(pyramid_levels=0)
    with pytest.raises(ValueError, match="rendered"):
        PhotometricLoss(PhotometricConfig())(torch.zeros(1, 1, 3, 8, 8), torch.zeros(1, 2, 3, 8, 8))


def test_loss_falls_when_the_rendering_moves_towards_the_photo():
    rng = np.random.default_rng(0)
    photo = torch.from_numpy(rng.random((1, 1, 3, 32, 32)))
    noise = torch.from_numpy(rng.normal(size=photo.shape))
    loss = PhotometricLoss(PhotometricConfig(perceptual="ssim", pyramid_levels=3, coarse_until=0.5))
    values = [loss(photo + s * noise, photo, 0.1)["loss"].item() for s in (0.3, 0.2, 0.1, 0.0)]
    assert values == sorted(values, reverse=True)
