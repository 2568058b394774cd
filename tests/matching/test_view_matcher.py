"""Matches of views: what is found, and what it means."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from nas3r.matching import FeaturesConfig, Matches, ViewMatcher
from nas3r.matching.grid import cell_centers
from nas3r.matching.support import with_support
from nas3r.solver.correspondences import on_rays

FIRST = torch.zeros(1, 1, dtype=torch.long)


def _matcher(patch_size: int = 4, stride: int | None = 2) -> ViewMatcher:
    """Patches as they are, on cells of a quarter of a patch."""
    return ViewMatcher(FeaturesConfig(), patch_size // 4, stride)


@pytest.mark.parametrize(("patch_size", "stride"), [(4, 2), (8, 2), (16, 2), (4, 1), (8, 1)])
@pytest.mark.parametrize(("dx", "dy"), [(4, 0), (-2, 6)])
def test_matches_are_where_the_image_moved(dx, dy, patch_size, stride):
    matcher, cell = _matcher(patch_size, stride), patch_size // 4
    h, w = 32 * cell, 48 * cell
    dx, dy = dx * cell, dy * cell
    side = 2 * cell + 1
    image = F.avg_pool2d(torch.rand(1, 3, h + side - 1, w + side - 1), side, 1)[None]
    moved = image.roll((dy, dx), (-2, -1))
    matches = matcher.match(matcher.features(moved), matcher.features(image), FIRST)
    shape = (32 // stride, 48 // stride)
    inside = tuple(slice(n // 4, -n // 4) for n in shape)  # away from the border, where nothing wraps
    shift = (matches.found - matches.places).unflatten(2, shape)[0, 0][inside] * torch.tensor([w, h])
    # In smooth images neighbours are alike too: a fifth of a cell, as in the covariance's floor.
    off = (shift - torch.tensor([-dx, -dy])).abs()
    assert off.median() < 0.05 * cell
    assert off.quantile(0.95) < 0.2 * max(cell, 1)
    assert matches.weights.unflatten(2, shape)[0, 0][inside].mean() > 0.5


@pytest.mark.parametrize("stride", [1, 2])
def test_moments_of_the_match_distribution(stride):
    """Against a loop over queries."""
    matcher = _matcher(stride=stride)
    (features,) = matcher.features(torch.rand(1, 2, 3, 8, 8))
    matches = matcher.match((features[:, 1:],), (features[:, :1],), FIRST)
    queries = features[0, 1, :, ::stride, ::stride].flatten(1).T
    probability = (80 * queries @ features[0, 0].flatten(1)).softmax(-1)
    line = (torch.arange(8) + 0.5) / 8
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)
    for i in (0, 5, 15):
        off = grid - matches.found[0, 0, i]
        expected = (probability[i][:, None, None] * off[:, :, None] * off[:, None]).sum(0)
        expected = expected + (0.3 / 8) ** 2 * torch.eye(2)
        torch.testing.assert_close(matches.covariances[0, 0, i], expected, atol=1e-5, rtol=1e-4)


def test_weights_are_the_mutual_agreement_near_the_match():
    """Against plain softmaxes in both directions."""
    matcher = _matcher(stride=1)
    (features,) = matcher.features(torch.rand(1, 2, 3, 8, 8))
    matches = matcher.match((features[:, 1:],), (features[:, :1],), FIRST)
    logits = 80 * features[0, 1].flatten(1).T @ features[0, 0].flatten(1)
    mutual = logits.softmax(-1) * logits.softmax(0)
    best = mutual.argmax(-1)
    for i in (0, 9, 37, 63):
        y, x = divmod(int(best[i]), 8)
        near = mutual[i].unflatten(0, (8, 8))[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        torch.testing.assert_close(matches.weights[0, 0, i], near.sum().clamp(max=1), atol=1e-5, rtol=1e-4)


def _scattered_matches(rows: int, columns: int) -> Matches:
    """A grid that moves by a tenth of the image, but for some queries that are found anywhere."""
    torch.manual_seed(0)
    places = cell_centers(rows, columns, torch.zeros(()))[None, None]
    found = places + 0.1 + 0.02 * torch.rand_like(places)
    wrong = torch.rand(1, 1, rows * columns, 1) < 0.2
    found = torch.where(wrong, torch.rand_like(places), found)
    weights = torch.rand(places.shape[:-1])
    return Matches(
        places, found, torch.eye(2).expand(*places.shape, 2), weights, support=torch.ones_like(weights)
    )


def test_neighbours_vouch_for_matches():
    """Against a loop over queries and their neighbours."""
    rows, columns = 6, 9
    matches = _scattered_matches(rows, columns)
    moved = (matches.found - matches.places)[0, 0] * torch.tensor([columns, rows])
    weights = matches.weights[0, 0]
    expected = []
    for i, (y, x) in enumerate(itertools.product(range(rows), range(columns))):
        votes = [
            weights[j] / (1 + (moved[i] - moved[j]).square().sum() ** 2)
            for j, (v, u) in enumerate(itertools.product(range(rows), range(columns)))
            if i != j and abs(y - v) <= 2 and abs(x - u) <= 2
        ]
        votes += [torch.zeros(())] * (24 - len(votes))  # beyond the border nobody votes
        expected.append(torch.stack(sorted(votes)[12:]).mean() ** 1.5)
    torch.testing.assert_close(with_support(matches, rows, columns).support[0, 0], torch.stack(expected))


def test_matches_that_no_neighbour_shares_count_for_little():
    matches = _scattered_matches(16, 16)
    right = ((matches.found - matches.places - 0.11).abs().amax(-1) < 0.02)[0, 0]
    support = with_support(matches, 16, 16).support[0, 0]
    assert support[right].median() > 5 * support[~right].median()


def test_a_single_query_has_no_neighbours():
    assert with_support(_scattered_matches(1, 1), 1, 1).support.item() == 0


def test_support_counts_whether_views_were_compared_before_or_not():
    matcher = ViewMatcher(FeaturesConfig(support=True), 2, stride=2)
    plain = _matcher(8)
    features = matcher.features(torch.rand(2, 3, 3, 32, 48))
    references = torch.tensor([[1, 2, 0], [2, 0, 1]])
    known = matcher.match(features, features, references, matcher.match_coarsely(features, features))
    anew = matcher.match(features, features, references)
    torch.testing.assert_close(vars(known), vars(anew), rtol=0, atol=0)
    without = plain.match(features, features, references)
    assert torch.equal(without.found, anew.found)
    assert torch.equal(without.weights, anew.weights)
    k = torch.eye(3).expand(2, 3, 3, 3)
    assert (on_rays(anew, k, k).weights < on_rays(without, k, k).weights).all()
    torch.testing.assert_close(
        vars(on_rays(anew.without_support(), k, k)), vars(on_rays(without, k, k)), rtol=0, atol=0
    )


@pytest.mark.parametrize(("side", "stride"), [(64, 1), (80, 1), (96, 2), (128, 2)])
def test_every_cell_is_looked_for_only_in_small_images(side, stride):
    matcher = _matcher(8, None)
    features = matcher.features(torch.rand(1, 1, 3, side, side))
    assert matcher.match(features, features, FIRST).places.shape[2] == (side // 2 // stride) ** 2


def test_memory_of_matching_grows_with_the_fourth_power_of_the_size():
    matcher = _matcher(8, None)
    assert matcher.peak_bytes(128, 128, 4) == 2 * 4 * 4 * 32**2 * 64**2
    assert matcher.peak_bytes(256, 256, 9) == 2**4 * matcher.peak_bytes(128, 128, 4)


@pytest.mark.parametrize("stride", [1, 2])
def test_matches_are_the_same_if_all_views_were_compared_before(stride):
    matcher = _matcher(8, stride)
    features = matcher.features(torch.rand(2, 6, 3, 32, 48))
    references = torch.randint(0, 6, (2, 6))
    coarse = matcher.match_coarsely(features, features)
    known = matcher.match(features, features, references, coarse)
    torch.testing.assert_close(
        vars(known), vars(matcher.match(features, features, references)), rtol=0, atol=0
    )


def test_projections_are_the_same_in_every_model_and_are_not_stored():
    a, b = _matcher(), _matcher()
    image = torch.rand(1, 1, 3, 16, 16)
    for x, y in zip(a.features(image), b.features(image), strict=True):
        assert torch.equal(x, y)
    assert not a.state_dict()


def test_flat_patches_match_nothing():
    (features,) = _matcher().features(torch.full((1, 1, 3, 16, 16), 0.3))
    assert features.abs().max() < 1e-3
