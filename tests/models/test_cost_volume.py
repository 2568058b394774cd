"""The local cost volume: what it finds, and that places and displacements mean what they say."""

import itertools

import pytest
import torch
import torch.nn.functional as F

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


def costs_one_by_one(volume, own, reference):
    """Logarithms of probabilities over uniform ones, cell by cell; 0 outside of the image."""
    _, h, w = own.shape
    side = 2 * RADIUS + 1
    rows = []
    for y, x in itertools.product(range(h), range(w)):
        likeness = {}
        for k, (dy, dx) in enumerate(itertools.product(range(-RADIUS, RADIUS + 1), repeat=2)):
            if 0 <= y + dy < h and 0 <= x + dx < w:
                likeness[k] = volume.sharpness * own[:, y, x] @ reference[:, y + dy, x + dx]
        total = sum(value.exp() for value in likeness.values())
        values = [torch.zeros(())] * side**2
        for k, value in likeness.items():
            values[k] = (value.exp() / total * side**2 + 0.01).log()
        rows.append(torch.stack(values))
    return torch.stack(rows).unflatten(0, (h, w))


def test_tokens_and_gradients_are_those_of_one_cell_after_the_other():
    """At a size that is no square."""
    volume = _volume(displacements=False)
    images = torch.rand(1, 2, 3, 8, 12)

    def one_by_one():
        features = volume.features(images)[0]
        patches = [
            costs_one_by_one(volume, own, features[0]).unflatten(1, (6 // 2, 2)).unflatten(0, (4 // 2, 2))
            for own in features
        ]
        costs = torch.stack(patches).permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
        return volume.fc2(F.gelu(volume.fc1(costs)))[None]

    def at_once():
        features = volume.features(images)
        return volume(features, features[:, :1].expand_as(features))

    torch.testing.assert_close(at_once(), one_by_one())
    parameters = list(volume.parameters())
    actual, expected = (torch.autograd.grad(f().square().sum(), parameters) for f in (at_once, one_by_one))
    for found, true in zip(actual, expected, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-3, atol=1e-4)  # float32 sums in another order
