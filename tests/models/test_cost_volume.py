"""The local cost volume: what it finds, and that places and displacements mean what they say."""

import pytest
import torch

from nas3r.models.cost_volume import CostVolume, CostVolumeConfig, _patch_places

RADIUS = 4


def _volume(*, displacements: bool) -> CostVolume:
    torch.manual_seed(0)
    return CostVolume(CostVolumeConfig(RADIUS, displacements), 24, patch_size=4)


@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (0, -3), (-1, 2)])
def test_displacements_point_to_where_the_image_was(dx, dy):
    volume = _volume(displacements=True)
    volume.sharpness.data.fill_(50)
    image = torch.rand(1, 1, 3, 32, 32)
    moved = image.roll((2 * dy, 2 * dx), (-2, -1))  # cells are two pixels wide
    found = {}
    volume._displacements = lambda probability, logits: found.setdefault(
        "flow", CostVolume._displacements(volume, probability, logits)
    )
    volume(volume.features(moved), volume.features(image))
    flow = found["flow"].reshape(16, 16, 5)[5:11, 5:11]  # away from the border, where nothing wraps
    expected = torch.tensor([-dx, -dy]) / RADIUS
    # Random features at this sharpness leave a few per cent of the probability elsewhere in the window.
    torch.testing.assert_close(flow[..., :2], expected.expand(6, 6, 2), atol=0.1, rtol=0)
    torch.testing.assert_close(flow[..., 2:4], expected.expand(6, 6, 2), atol=1e-2, rtol=0)
    assert (flow[..., 4] > 0.7).all()


def test_places_are_patch_centres_row_by_row():
    places = _patch_places(2, 4, torch.device("cpu"))
    assert places.shape == (1, 1, 8, 2)
    torch.testing.assert_close(places[0, 0, 0], torch.tensor([-0.75, -0.5]))
    torch.testing.assert_close(places[0, 0, 5], torch.tensor([-0.25, 0.5]))


@pytest.mark.parametrize("displacements", [False, True])
def test_tokens_at_any_size_with_gradients(displacements):
    volume = _volume(displacements=displacements)
    features = volume.features(torch.rand(2, 3, 3, 16, 24))
    assert features.shape == (2, 3, 32, 8, 12)
    tokens = volume(features, features[:, :1].expand_as(features))
    assert tokens.shape == (2, 3, 24, 24)
    tokens.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in volume.parameters())
