"""From a configuration to a finished run: opens the data, builds network and objective, trains."""

from pathlib import Path

import torch
from torch import nn

from nas3r.data.clips import ViewBatch
from nas3r.losses import PhotometricLoss
from nas3r.models import load
from nas3r.training.config import TrainConfig
from nas3r.training.distributed import World, join_world
from nas3r.training.loop import Outcome, train
from nas3r.training.prefetch import Prefetcher
from nas3r.training.sources import open_loader
from nas3r.training.step import StepOutput, photometric_step
from nas3r.training.trainer import Objective, Validator
from nas3r.training.validate import SyntheticValidator


def make_objective(config: TrainConfig, device: torch.device) -> Objective:
    """The loss of a batch, as the configuration asks for it."""
    loss = PhotometricLoss(config.loss).to(device)

    def objective(model: nn.Module, batch: ViewBatch, progress: float) -> StepOutput:
        return photometric_step(model, batch, loss, config.step, progress=progress)

    return objective


def make_validator(config: TrainConfig) -> Validator:
    """Validation on held-out worlds like those of the recipe, at the widest gap of its curriculum."""
    data = config.data
    gap = (
        min(int(data.sampler.schedule.end[1]), data.synthetic.frames - 1) if data.kind == "synthetic" else 12
    )
    return SyntheticValidator(
        data.synthetic,
        data.height,
        data.width,
        gap=gap,
        context_views=min(data.sampler.context_views, gap - 1),
    )


def run_training(
    config: TrainConfig,
    run: Path,
    *,
    resume: bool = False,
    world: World | None = None,
    validate: bool = True,
) -> Outcome:
    """Trains as configured.

    Args:
        config: The run.
        run: Its folder.
        resume: Continue from the newest valid checkpoint there.
        world: Processes that train together.
        validate: Whether to measure on held-out synthetic scenes at the configured intervals.

    Raises:
        ValueError: If data, weights or options do not fit.
    """
    world = world or join_world()
    loader = open_loader(config, world)
    model = None if config.initial is None else load(config.initial, device="cpu")
    validating = validate and config.runtime.validate_every > 0 and world.is_first
    prefetcher = None
    if config.data.workers:
        last = config.schedule.steps if config.schedule.minutes is None else None
        loader = prefetcher = Prefetcher(loader, config.data.workers, last=last)
    try:
        return train(
            config,
            run,
            loader,
            make_objective(config, world.device),
            model=model,
            resume=resume,
            validator=make_validator(config) if validating else None,
            world=world,
        )
    finally:
        if prefetcher is not None:
            prefetcher.close()
