from dataclasses import replace

import pytest
import torch
from small_runs import SIZE, make_config

from nas3r.data.sampling import GapSchedule, ViewSampler
from nas3r.data.synthetic import SyntheticConfig
from nas3r.losses import PhotometricConfig, PhotometricLoss
from nas3r.models import NAS3R, ModelConfig, load, presets, save
from nas3r.training.ablations import given_intrinsics
from nas3r.training.config import DataConfig, OptimConfig, RuntimeConfig, ScheduleConfig
from nas3r.training.distributed import World
from nas3r.training.log import read_log
from nas3r.training.loop import train
from nas3r.training.objectives import Supervised
from nas3r.training.objectives.alone import alone_loss
from nas3r.training.pace import Pace
from nas3r.training.run import initial_model, run_training
from nas3r.training.sources import open_loader

WORLD = World(0, 1, torch.device("cpu"))
DATA = DataConfig(
    height=SIZE,
    width=SIZE,
    batch_size=4,
    sampler=ViewSampler(GapSchedule((4, 4), (4, 4), 0)),
    synthetic=SyntheticConfig(frames=8, supersampling=1),
    workers=0,
)


class Repeating:
    """The same batch at every step: can be learnt by heart in a few dozen."""

    def __init__(self, config) -> None:
        self._batch = open_loader(config, WORLD, Pace()).batch(0)

    def batch(self, step: int):
        return self._batch


def _config(**options):
    return make_config(
        data=DATA,
        objective=Supervised(),
        optim=OptimConfig(lr=3e-3),
        schedule=ScheduleConfig(steps=60, warmup_steps=5),
        runtime=RuntimeConfig(log_every=10, panel_every=0, validate_every=0),
        **options,
    )


def _step_function(config):
    return config.objective.make_step(config.model, config.step, WORLD.device)


def test_supervision_learns_a_batch_by_heart(run):
    config = _config()
    train(config, run, Repeating(config), _step_function(config))
    lines = [line for line in read_log(run) if line["kind"] == "train"]
    assert {"rotation", "translation", "focal", "depth"} <= lines[0].keys()
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    for term in ("translation", "focal", "depth"):
        assert lines[-1][term] < lines[0][term]


def test_given_intrinsics_reach_the_network(smallest: ModelConfig, run):
    model = presets.given_intrinsics(smallest)
    config = make_config(model=model, data=DATA)
    batch = open_loader(config, WORLD, Pace()).batch(0)
    network = NAS3R(model)
    output = _step_function(config)(network, batch, 0.0)
    assert torch.equal(output.prediction.cameras.intrinsics, batch.cameras.intrinsics[:, :2])
    output.loss.backward()
    assert "psnr" in output.terms


def test_fine_tuning_starts_from_the_given_weights(smallest, tmp_path):
    torch.manual_seed(3)
    model = NAS3R(smallest)
    save(model, tmp_path / "start.safetensors")
    config = replace(_config(initial=str(tmp_path / "start.safetensors")), schedule=ScheduleConfig(steps=1))
    loaded = initial_model(config)
    assert loaded is not None
    for a, b in zip(model.parameters(), loaded.parameters()):
        assert torch.equal(a, b)
    outcome = run_training(config, tmp_path / "run", world=WORLD)
    assert outcome.step == 1


def test_weights_that_cannot_be_told_intrinsics_are_refused(smallest, tmp_path):
    save(NAS3R(smallest), tmp_path / "start.safetensors")
    told = given_intrinsics(_config(initial=str(tmp_path / "start.safetensors")))
    with pytest.raises(ValueError, match="cannot be told the intrinsics"):
        initial_model(told)


def test_weights_say_at_which_size_they_were_trained_last(smallest, tmp_path):
    save(NAS3R(smallest), tmp_path / "start.safetensors")
    config = replace(_config(initial=str(tmp_path / "start.safetensors")), schedule=ScheduleConfig(steps=1))
    config = replace(config, data=replace(config.data, height=2 * SIZE, width=2 * SIZE))
    outcome = run_training(config, tmp_path / "run", world=WORLD)
    assert load(outcome.weights, device="cpu").config.image_size == 2 * SIZE


def test_recipes_that_need_a_prior_ask_for_it():
    with pytest.raises(ValueError, match=r"VGGT-1B weights: --weights"):
        initial_model(make_config(prior="VGGT-1B"))


def test_alone_loss_reaches_poses_and_depth_but_not_appearance(smallest, loader):
    torch.manual_seed(1)
    model = NAS3R(smallest)
    batch = loader.batch(0)
    loss = alone_loss(model(batch.context, batch.target), batch, PhotometricLoss(PhotometricConfig()), 0.0)
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    assert any(
        g is not None and g.abs().max() > 0 for n, g in gradients.items() if n.startswith("camera_head")
    )
    for name, gradient in gradients.items():
        if name.startswith("gaussian_head"):
            assert gradient is None or gradient.abs().max() == 0
