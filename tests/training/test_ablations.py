from dataclasses import replace

import pytest

from nas3r.config_parts import to_plain
from nas3r.models import build
from nas3r.training import recipes
from nas3r.training.ablations import ABLATIONS, fixed_matching
from nas3r.training.optim import Optimizer
from nas3r.training.state import config_differences

# What each takes away, and nothing else.
CHANGES = {
    "canonical_points": [
        "model.compare_views was True",
        "model.depth.output.class was LogDepth, now CanonicalPoints",
    ],
    "without_mask": ["model.compare_views was True", "model.masked was True, now False"],
    "without_backdrop": ["model.gaussians.backdrop was True, now False"],
    "without_curriculum": [],  # the length of the curriculum may differ when a run is resumed
    "given_intrinsics": [
        "model.camera.focal was {'class': 'LogFocal'}, now None",
        "model.decoder.intrinsics_token was False, now True",
        "optim",
    ],
    "fixed_matching": ["objective.matching_weight was 0.03, now 0.0", "optim"],
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_one_thing(name):
    config = replace(recipes.get("tiny-synthetic"), initial="weights")
    ablated = ABLATIONS[name](config)
    found = config_differences(to_plain(config), to_plain(ablated))
    assert len(found) == len(CHANGES[name])
    assert all(line.startswith(expected) for line, expected in zip(found, CHANGES[name]))
    model = build(ablated.model)
    ablated.objective.prepare(model)
    Optimizer(model, ablated.optim, ablated.schedule)  # every rule finds its parameters


def test_without_a_curriculum_the_gaps_are_final():
    schedule = ABLATIONS["without_curriculum"](recipes.get("tiny-synthetic")).data.sampler.schedule
    assert schedule.bounds(0) == schedule.end != schedule.start


def test_networks_that_are_told_intrinsics_ask_for_labels():
    config = recipes.get("tiny-synthetic")
    told = ABLATIONS["given_intrinsics"](config)
    assert not config.objective.needs_labels(config.model)
    assert told.objective.needs_labels(told.model)
    assert ABLATIONS["given_intrinsics"](told) == told


def test_only_learnt_matching_can_be_left_as_it_is():
    config = recipes.get("tiny-synthetic")
    with pytest.raises(ValueError, match="none are named"):
        fixed_matching(config)
    with pytest.raises(ValueError, match="nothing but matching"):
        fixed_matching(replace(recipes.get("tiny-matching"), initial="weights"))
    ablated = fixed_matching(replace(config, initial="weights"))
    model = build(config.model)
    ablated.objective.prepare(model)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(".matcher.coarse." in name for name in frozen)
