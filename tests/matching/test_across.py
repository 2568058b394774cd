"""Looking across two views: probabilities, symmetry, what depends on what, and what is learnt."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas3r.matching import AcrossConfig, FeaturesConfig, Matches, ViewMatcher
from nas3r.matching.across import AcrossViews
from nas3r.matching.dense import match_cells
from nas3r.matching.features import LearntFeaturesConfig
from nas3r.matching.grid import cell_centers
from nas3r.matching.relief import KnownPairs
from nas3r.models import build, presets
from nas3r.models.config import ModelConfig
from nas3r.models.looking_across import looking_across
from nas3r.models.poses import Solved

SMALL = AcrossConfig(width=24, layers=2, heads=2)
FEATURES = FeaturesConfig(LearntFeaturesConfig(16, 2), support=True)


def _random(module: nn.Module) -> nn.Module:
    """Weights that are all at work, as if something had been learnt."""
    torch.manual_seed(3)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return module


def _cells(*shape: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return F.normalize(torch.randn(*shape), dim=-3)


def _matcher(across: AcrossConfig | None = SMALL) -> ViewMatcher:
    torch.manual_seed(0)
    matcher = ViewMatcher(replace(FEATURES, across=across), 2, stride=2).eval()
    if matcher.across is not None:
        _random(matcher.across)
    return matcher


def _alike(a: Matches, b: Matches) -> None:
    torch.testing.assert_close(vars(a), vars(b), rtol=0, atol=0)


def test_places_and_nowhere_add_up_to_one():
    across = _random(AcrossViews(10, SMALL))
    assigned = across(_cells(2, 10, 16, 24), _cells(2, 10, 16, 24, seed=1))
    for way in (assigned.forward, assigned.backward):
        assert way.shape == (2, 24, 25)
        torch.testing.assert_close(way.exp().sum(-1), torch.ones(2, 24))
    together = assigned.together()
    assert together.shape == (2, 4, 6, 4, 6)
    assert together.min() >= 0
    assert together.max() <= 1 + 1e-5
    around = assigned.forward[1, :, :-1].exp().view(4, 6, 4, 6)[2, 3, 1:4, 3:6].sum()
    back = assigned.backward[1, :, :-1].exp().view(4, 6, 4, 6)[2, 4, 1:4, 2:5].sum()
    torch.testing.assert_close(together[1, 2, 3, 2, 4], around * back)


def test_both_views_are_treated_alike():
    across = _random(AcrossViews(10, SMALL))
    a, b = _cells(3, 10, 16, 16), _cells(3, 10, 16, 16, seed=1)
    one, other = across(a, b), across(b, a)
    torch.testing.assert_close(one.forward, other.backward, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one.backward, other.forward, atol=1e-5, rtol=1e-4)


def test_at_first_tokens_are_seen_where_they_are_most_alike():
    cells = _cells(1, 40, 16, 16)
    moved = cells.roll((4, 8), (-2, -1))
    assigned = AcrossViews(40, SMALL)(moved, cells)
    found = assigned.forward[0, :, :-1].argmax(-1)
    expected = torch.arange(16).view(4, 4).roll((1, 2), (0, 1)).flatten()
    assert torch.equal(found, expected)


def test_matches_of_a_pair_depend_on_no_other_view():
    matcher = _matcher()
    images = torch.rand(1, 4, 3, 32, 48)
    references = torch.tensor([[1, 0, 1, 0]])
    features = matcher.features(images)
    matches = matcher.match(features, features, references)
    other = images.clone()
    other[:, 2:] = torch.rand(1, 2, 3, 32, 48)
    changed = matcher.match(matcher.features(other), features, references)
    _alike(matches.views(slice(2)), changed.views(slice(2)))
    assert not torch.equal(matches.views(slice(2, None)).found, changed.views(slice(2, None)).found)


def test_matches_are_the_same_if_all_views_were_compared_before():
    matcher = _matcher()
    features = matcher.features(torch.rand(2, 3, 3, 32, 48))
    references = torch.tensor([[1, 2, 0], [2, 0, 1]])
    known = matcher.match(features, features, references, matcher.match_coarsely(features, features))
    _alike(known, matcher.match(features, features, references))


def test_the_context_does_not_depend_on_targets():
    config = presets.get("tiny")
    config = replace(config, poses=replace(config.poses, features=replace(FEATURES, across=SMALL)))
    torch.manual_seed(0)
    model = build(config).eval()
    matcher = model.poses.view_matcher
    assert matcher is not None
    assert matcher.across is not None
    _random(matcher.across)
    images = torch.rand(1, 3, 3, 64, 64)
    with torch.no_grad():
        alone = model(images, None)
        beside = model(images, torch.rand(1, 2, 3, 64, 64))
    assert torch.equal(alone.cameras.world_from_camera, beside.cameras.world_from_camera)
    assert torch.equal(alone.depth, beside.depth)


def test_without_it_nothing_changes():
    """It has no weights, takes none of the random numbers that others get, and is off in every preset."""
    assert FeaturesConfig().across is None
    for name in presets.names():
        features = getattr(presets.get(name).poses, "features", None)
        assert features is None or features.across is None
    plain, across = _matcher(None), _matcher()
    assert not any("across" in name for name in plain.state_dict())
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, across.state_dict()[name])


def test_what_is_believed_draws_matches():
    """Two places look the same; looking across says which of them it is."""
    cells = _cells(1, 1, 40, 16, 16)
    twice = torch.cat([cells, cells], -1)
    together = 0.9 * torch.eye(32).view(1, 1, 4, 8, 4, 8)
    plain = match_cells(twice, twice, 1)
    drawn = match_cells(twice, twice, 1, together)
    assert (drawn.found - drawn.places).abs().amax(-1).median() < 0.05
    assert drawn.weights.median() > 1.5 * plain.weights.median()
    unseen = match_cells(twice, twice, 1, torch.zeros_like(together))
    assert (unseen.weights == 0).all()


def test_places_that_are_known_are_learnt():
    across = AcrossViews(40, SMALL)
    cells = _cells(2, 40, 16, 16)
    places = cell_centers(4, 4, cells).expand(2, -1, -1)
    seen = torch.rand(2, 16) < 0.7
    pairs = KnownPairs(cells, cells, places.roll(1, 1), seen, places.roll(-1, 1), seen.roll(-1, 1))
    optimizer = torch.optim.Adam(across.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = -across(cells, cells).likelihood(pairs)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in across.parameters())


def test_only_looking_across_learns_from_relief():
    matcher = _matcher().train()
    assert matcher.across is not None
    matcher.across_loss(torch.rand(4, 3, 32, 32)).backward()
    assert all(p.grad is None for p in matcher.coarse.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in matcher.across.parameters())


def test_weights_without_it_start_a_model_that_looks_across():
    config = replace(presets.get("tiny"), poses=Solved(features=FEATURES))
    model = build(config)
    like = replace(config, poses=replace(config.poses, features=replace(FEATURES, across=SMALL)))
    made = looking_across(model, like)
    assert made.config == like
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, made.state_dict()[name])
    assert looking_across(made, like) is made
    assert looking_across(model, config) is model
    assert ModelConfig.from_dict(like.to_dict()) == like
    with pytest.raises(ValueError, match="solves for poses"):
        looking_across(build(presets.get("tiny-paper")), like)
