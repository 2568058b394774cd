"""A run that learns nothing but what views are matched by."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nas3r.cli.main import main
from nas3r.data.clips import ViewBatch
from nas3r.matching import FeaturesConfig
from nas3r.models import NAS3R, load, save
from nas3r.training import recipes
from nas3r.training.objectives import Matching
from nas3r.training.objectives.matching import halved, matching_step
from nas3r.training.run import run_training
from nas3r.training.step import StepConfig


def test_only_the_features_learn(tmp_path: Path):
    config = recipes.get("tiny-matching")
    config = replace(
        config,
        data=replace(config.data, batch_size=1, height=32, width=32),
        schedule=replace(config.schedule, steps=2, warmup_steps=0),
        runtime=replace(config.runtime, log_every=1, panel_every=1, validate_every=0),
    )
    torch.manual_seed(config.seed)
    before = NAS3R(config.model).state_dict()
    outcome = run_training(config, tmp_path / "run")
    after = load(outcome.weights, "cpu").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".matcher.coarse." in name for name in changed)
    assert not list((tmp_path / "run").glob("panels/*"))


def test_only_looking_across_learns_on_top_of_the_default_weights(tmp_path: Path):
    config = recipes.get("tiny-matching-across")
    config = replace(
        config,
        data=replace(config.data, batch_size=2, height=32, width=32, pool=0),
        schedule=replace(config.schedule, steps=2, warmup_steps=0),
        runtime=replace(config.runtime, log_every=1),
    )
    outcome = run_training(config, tmp_path / "run")
    before, after = load("default", "cpu").state_dict(), load(outcome.weights, "cpu").state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(".matcher.across." in name for name in after.keys() - before.keys())
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(0 < entry["loss"] < 10 for entry in logged if entry["kind"] == "train")


def test_every_view_is_learnt_from_by_itself():
    model = NAS3R(recipes.get("tiny-matching").model).train()
    images = torch.rand(1, 3, 3, 32, 32)
    torch.manual_seed(0)
    output = matching_step(model, ViewBatch(images[:, :2], images[:, 2:]))
    torch.manual_seed(0)
    torch.testing.assert_close(output.loss, model.poses.view_matcher.matching_loss(halved(images[0])))
    assert output.prediction is None


def test_half_of_an_image_is_all_of_it_smaller_or_a_part_of_it():
    images = torch.rand(2, 3, 32, 48)
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        half = halved(images)
        assert half.shape == (2, 3, 16, 24)
        is_smaller = torch.allclose(half, nn.functional.avg_pool2d(images, 2), atol=1e-6)
        parts = images.unfold(2, 16, 1).unfold(3, 24, 1).permute(2, 3, 0, 1, 4, 5)
        assert is_smaller != bool((parts == half).flatten(2).all(-1).any())
        seen.add(is_smaller)
    assert seen == {True, False}


def test_what_was_learnt_can_be_left_as_it_is(tmp_path: Path):
    weights = tmp_path / "start.safetensors"
    start = NAS3R(recipes.get("tiny-synthetic").model)
    save(start, weights)
    command = ["train", "tiny-synthetic", "--weights", str(weights), "--no-matching", "--no-validate"]
    command += ["-o", str(tmp_path / "run"), "--size", "32", "--batch-size", "1", "--steps", "1"]
    assert main(command) == 0
    before, after = start.state_dict(), load(tmp_path / "run" / "model.safetensors", "cpu").state_dict()
    assert not any(name for name in before if "coarse" in name and not torch.equal(before[name], after[name]))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert "matching" not in json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])


def test_what_cannot_be_learnt_is_said():
    network, cpu = recipes.get("tiny-matching").model, torch.device("cpu")
    patches = replace(network, poses=replace(network.poses, features=FeaturesConfig()))
    with pytest.raises(ValueError, match="learns what to match by"):
        Matching().make_step(patches, StepConfig(), cpu)
    with pytest.raises(ValueError, match="looks across"):
        Matching(learns="across").make_step(network, StepConfig(), cpu)
    step = Matching().make_step(network, StepConfig(), cpu)
    with pytest.raises(ValueError, match="single process"):
        step(nn.Identity(), None, 0.0)
