import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_helpers import reduced_config
from small_runs import SIZE, SMALLEST, Sliding

from nas3r.config_parts import from_plain, to_plain
from nas3r.data.clips import ViewBatch
from nas3r.data.posed import LabelledBatch
from nas3r.geometry import Cameras
from nas3r.models import build
from nas3r.models.poses.regressed import Regressed
from nas3r.training import recipes
from nas3r.training.config import TrainConfig
from nas3r.training.distributed import World
from nas3r.training.finite import replace_non_finite
from nas3r.training.objectives import Photometric
from nas3r.training.optim import Optimizer, parameter_groups
from nas3r.training.trainer import Trainer

PUBLISHED = [name for name in recipes.names() if name.startswith("re10k")]
WORLD = World(0, 1, torch.device("cpu"))


def _reduced(config):
    """The layout of each family at a size that steps in a moment; everything else stays the recipe's."""
    model = replace(reduced_config(config.model), image_size=2 * config.model.patch_size)
    objective = config.objective
    if isinstance(objective, Photometric):
        objective = replace(objective, loss=replace(objective.loss, perceptual="none"))
    return replace(config, model=model, objective=objective)


def _batch(config):
    size = config.model.image_size
    images = torch.rand(2, 3, 3, size, size)
    pose = torch.eye(4).repeat(2, 3, 1, 1)
    pose[:, :, 0, 3] = torch.arange(3) / 10
    cameras = Cameras(pose, torch.tensor([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]).repeat(2, 3, 1, 1))
    if not config.objective.needs_labels(config.model):
        return ViewBatch(images[:, :2], images[:, 2:])
    return LabelledBatch(images[:, :2], images[:, 2:], cameras, torch.ones(2, 2, size, size))


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_builds_and_steps_at_reduced_size(name, tmp_path):
    config = _reduced(recipes.get(name))

    class Fixed:
        def batch(self, step: int):
            return _batch(config)

    step = config.objective.make_step(config.model, config.step, torch.device("cpu"))
    trainer = Trainer(config, tmp_path, build(config.model), Fixed(), step, world=WORLD)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    for _ in range(2):
        _, output = trainer.take_step(0.0)
    assert torch.isfinite(output.loss)
    assert trainer.optimizer.skipped.item() == 0
    moved = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    groups = parameter_groups(trainer.model, config.optim)
    resting = {n for g in groups if g["multiplier"] == 0 or g["frozen_until"] > 1 for n in g["names"]}
    assert moved
    assert not moved & resting


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_hyper_parameters(name):
    """Values of the released configuration: facts 7.1 and 7.2 of the reference notes."""
    config = recipes.get(name)
    mast3r_family, pretrained = "-m" in name.replace("-multiview", ""), config.prior is not None
    assert isinstance(config.objective, Photometric)
    assert config.objective.loss.perceptual == "lpips"
    assert config.objective.loss.gamma == 0.05
    assert config.objective.loss.pyramid_levels == 1
    assert config.optim.optimizer == "adamw"
    assert config.optim.betas == (0.9, 0.95)
    assert config.optim.weight_decay == 0.05
    assert config.optim.decay == "all"
    assert config.optim.clip_norm == 0.5
    assert config.optim.skip_above == (5.0 if mast3r_family else 20.0)
    assert config.optim.ema == 0
    assert config.optim.lr == (5e-5 if mast3r_family and not pretrained else 1e-4)
    assert config.data.batch_size == (16 if mast3r_family else 10)
    assert config.schedule.steps == (300_001 if mast3r_family else 400_001)
    assert config.schedule.warmup_steps == 2000
    assert config.schedule.warmup_start == 1 / 2000
    assert config.schedule.final == 0.01
    assert config.schedule.cosine_includes_warmup
    assert config.schedule.absolute_floor
    assert (config.data.height, config.data.width) == ((256, 256) if mast3r_family else (224, 224))
    assert config.data.flip
    assert config.data.sampler.targets == "published"
    assert config.data.sampler.target_views == 1
    assert config.data.sampler.context_views == (10 if name == "re10k-multiview" else 2)
    assert config.data.sampler.schedule.warm_up == (150_000 if mast3r_family else 200_000)
    assert config.data.dropout is not None
    assert config.data.dropout.context
    assert config.data.dropout.target
    assert not config.step.autocast
    assert not config.step.checkpointing
    assert config.objective.alone_weight == config.objective.depth_prior == 0
    assert config.seed == 111123
    assert config.model.needs_intrinsics == ("-I" in name)


def test_published_gaps(reference_folder: Path):
    facts = json.loads((reference_folder / "modules" / "schedule_and_tags.json").read_text())
    recipe = {"random": "re10k", "pretrained": "re10k-from-vggt"}
    for key, bounds in facts["schedule_min_max_gap"].items():
        kind, _, step = key.partition("@")
        schedule = recipes.get(recipe[kind]).data.sampler.schedule
        assert list(schedule.bounds(int(step))) == bounds, key


def test_published_learning_rates_of_a_pretrained_network():
    config = _reduced(recipes.get("re10k-I"))
    rates = {
        name: g["multiplier"]
        for g in parameter_groups(build(config.model), config.optim)
        for name in g["names"]
    }
    assert {r for n, r in rates.items() if n.startswith("gaussian_head")} == {1.0}
    assert {r for n, r in rates.items() if "intrinsics" in n} == {1.0}
    assert {r for n, r in rates.items() if n.startswith(("encoder", "camera_head", "depth_head"))} == {0.1}
    optimizer = Optimizer(build(config.model), config.optim, config.schedule)
    optimizer.set_learning_rates(2000)
    rates = sorted(g["lr"] for a in optimizer.algorithms for g in a.param_groups)
    assert rates == pytest.approx([1e-5, 1e-4])


def test_random_recipes_have_one_rate():
    assert recipes.get("re10k").optim.rules == ()
    assert recipes.get("re10k-m").optim.rules == ()


def test_the_recipes_of_the_paper_regress_their_poses():
    walk, everything = recipes.get("tiny-paper"), recipes.get("tiny-paper-all")
    assert walk.model.poses == Regressed()
    assert walk.model.cost_volume is None
    assert not walk.model.compare_views
    assert isinstance(walk.objective, Photometric)
    assert set(walk.data.synthetic.paths) == {"dolly", "strafe", "walk", "drift"}
    assert "orbit" in everything.data.synthetic.paths
    assert everything == replace(
        walk, name="tiny-paper-all", data=replace(walk.data, synthetic=everything.data.synthetic)
    )
    assert walk.schedule.steps * walk.data.batch_size >= 1_500_000


def test_unknown_recipes_are_answered_with_the_list():
    with pytest.raises(ValueError, match="tiny-synthetic: "):
        recipes.get("huge")


def test_configurations_become_plain_json_and_back():
    for name in recipes.names():
        plain = to_plain(recipes.get(name))
        assert json.loads(json.dumps(plain)) == plain
        assert from_plain(TrainConfig, plain, complete=True) == recipes.get(name)
        assert plain["data"]["sampler"]["schedule"]["class"] == "GapSchedule"


def test_non_finite_predictions_are_made_harmless_and_poison_the_loss():
    model = build(SMALLEST)
    batch = Sliding().batch(0)
    fine, factor = replace_non_finite(model(batch.context, batch.target))
    assert factor.item() == 1
    assert torch.equal(fine.depth, model(batch.context, batch.target).depth)
    broken, factor = replace_non_finite(model(batch.context, batch.target * float("nan")))
    assert torch.isnan(factor)
    assert torch.isfinite(broken.gaussians.means).all()
    assert batch.target.shape[-1] == SIZE
