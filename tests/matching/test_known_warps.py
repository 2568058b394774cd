"""Matching learnt from single images."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas3r.matching.features import LearntFeatures, LearntFeaturesConfig
from nas3r.matching.known_warps import matching_loss, random_warps

PATCHES = ((3, 1), (5, 1))


def smooth_images(n: int, size: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return F.avg_pool2d(torch.rand(n, 3, size + 2, size + 2, generator=g), 3, 1)


def test_warps_are_functions_of_the_seed_and_stay_mostly_inside():
    torch.manual_seed(1)
    source, inside = random_warps(64, 24, 32, torch.device("cpu"))
    torch.manual_seed(1)
    again, _ = random_warps(64, 24, 32, torch.device("cpu"))
    assert torch.equal(source, again)
    assert source.shape == (64, 24, 32, 2)
    assert 0.4 < inside.float().mean() < 0.95
    assert torch.equal(inside, (source.abs() < 1).all(-1))


class _Places(nn.Module):
    """Features that say where a cell is in the unwarped image: the warped one is looked up."""

    def __init__(self, source: torch.Tensor) -> None:
        super().__init__()
        self.source = source

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        n, _, h, w = images.shape
        line = (torch.arange(h) + 0.5) / h * 2 - 1
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), 0).expand(n // 2, 2, h, w)
        warped = F.avg_pool2d(self.source.permute(0, 3, 1, 2), self.source.shape[1] // h)
        x = torch.cat([warped, grid])
        # |a - b|^2 as an inner product, up to what all candidates of a query share.
        far = x.square().sum(1, keepdim=True)
        candidates = torch.cat([2 * x, -far, torch.ones_like(far)], 1)
        queries = torch.cat([x, torch.ones_like(far), -far], 1)
        return 4 * torch.cat([queries[: n // 2], candidates[n // 2 :]])


def test_knowing_the_places_is_better_than_knowing_nothing():
    images = smooth_images(4, 32)
    torch.manual_seed(3)
    source, _ = random_warps(4, 32, 32, images.device)
    torch.manual_seed(3)
    known = matching_loss(_Places(source), images, 2)
    torch.manual_seed(3)
    unknown = matching_loss(lambda x: torch.zeros(len(x), 2, *x.shape[-2:]), images, 2)
    cells, queries = 16 * 16, 8 * 8
    nothing = torch.tensor(float(cells)).log() + 0.5 * torch.tensor(float(queries)).log()
    torch.testing.assert_close(unknown, nothing)
    assert known < 0.6 * unknown


@pytest.mark.parametrize("scales", [1, 3])
def test_features_learn_to_match(scales):
    images = smooth_images(8, 32)
    torch.manual_seed(0)
    features = LearntFeatures(PATCHES, LearntFeaturesConfig(16, scales))
    optimizer = torch.optim.Adam(features.parameters(), 5e-3)

    def measured() -> float:
        torch.manual_seed(1000)
        with torch.no_grad():
            return sum(matching_loss(features, images, 2).item() for _ in range(8)) / 8

    before = measured()
    for step in range(60):
        torch.manual_seed(step)
        optimizer.zero_grad()
        matching_loss(features, images, 2).backward()
        optimizer.step()
    assert measured() < 0.95 * before


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (3, 16)])
def test_features_at_several_scales_take_images_of_any_size(size):
    features = LearntFeatures(PATCHES, LearntFeaturesConfig(16, 4))(torch.rand(2, 3, *size))
    assert features.shape[-2:] == size
    assert (features.square().sum(1) < 1 + 1e-5).all()
