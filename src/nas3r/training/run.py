"""From a configuration to a finished run: opens the data, builds network and objective, trains."""

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from nas3r.data.clips import ViewBatch
from nas3r.losses import PhotometricLoss, SupervisedConfig, SupervisedLoss
from nas3r.models import NAS3R, load
from nas3r.models.priors import load_prior
from nas3r.training.config import TrainConfig
from nas3r.training.distributed import World, join_world
from nas3r.training.labelled import LabelledBatch
from nas3r.training.loop import Outcome, train
from nas3r.training.matching import matching_step
from nas3r.training.pace import Pace
from nas3r.training.prefetch import Prefetcher
from nas3r.training.sources import WorldStream, open_loader
from nas3r.training.step import StepOutput, photometric_step
from nas3r.training.supervised import given_intrinsics_step, supervised_step
from nas3r.training.trainer import Loader, Objective, Validator
from nas3r.training.validate import SyntheticValidator

logger = logging.getLogger(__name__)

VALIDATION_GAP = 12  # frames, where the training data have no natural one for synthetic worlds

MOST_NAMED = 10  # clips left out that are named one by one


def make_objective(config: TrainConfig, device: torch.device) -> Objective:
    """The loss of a batch, as the configuration asks for it.

    Raises:
        ValueError: If the labels that are read do not fit what the network and the loss need.
    """
    labels, given = config.data.labels, config.model.needs_intrinsics
    if (config.supervised is not None) != (labels == "all") or (given and labels == "none"):
        raise ValueError(
            f"labels {labels!r} do not fit: supervised {config.supervised is not None}, "
            f"intrinsics given to the network {given}"
        )
    if config.step.matching_only:
        return _matching(config)
    if config.supervised is not None:
        return _supervised(config, config.supervised, given)
    loss = PhotometricLoss(config.loss).to(device)

    def with_intrinsics(model: nn.Module, batch: LabelledBatch, progress: float) -> StepOutput:
        return given_intrinsics_step(model, batch, loss, config.step, progress=progress)

    def from_pixels(model: nn.Module, batch: ViewBatch, progress: float) -> StepOutput:
        return photometric_step(model, batch, loss, config.step, progress=progress)

    return with_intrinsics if given else from_pixels


def _supervised(config: TrainConfig, weights: SupervisedConfig, given: bool) -> Objective:
    loss = SupervisedLoss(weights)

    def objective(model: nn.Module, batch: LabelledBatch, progress: float) -> StepOutput:
        return supervised_step(model, batch, loss, config.step, given=given)

    return objective


def _matching(config: TrainConfig) -> Objective:
    if not (config.model.solve_poses and config.model.solve_width):
        raise ValueError("matching_only: expected a model that learns what to match by (solve_width > 0)")

    def objective(model: nn.Module, batch: ViewBatch, progress: float) -> StepOutput:
        if not isinstance(model, NAS3R):
            raise ValueError("matching_only: expected a single process; start it without torchrun")
        return matching_step(model, batch)

    return objective


def make_validator(config: TrainConfig) -> Validator:
    """Validation on held-out worlds like those of the recipe, at the widest gap of its curriculum."""
    data = config.data
    gap = VALIDATION_GAP
    if data.kind == "synthetic":
        gap = min(int(data.sampler.schedule.end[1]), data.synthetic.frames - 1)
    views = min(data.sampler.context_views, gap - 1)
    return SyntheticValidator(data.synthetic, data.height, data.width, gap=gap, context_views=views)


def initial_model(config: TrainConfig) -> NAS3R | None:
    """The model a run starts from, where that is not a random one.

    Raises:
        ValueError: If the recipe starts from weights and none are named.
    """
    if config.initial is None:
        if config.prior is not None:
            raise ValueError(f"recipe {config.name!r} starts from {config.prior} weights: --weights FILE")
        return None
    if config.prior is None:
        model = load(config.initial, device="cpu")
        if model.solver is not None and config.step.matching_weight == 0:
            model.solver.coarse.requires_grad_(False)
        return model
    torch.manual_seed(config.seed)
    model = NAS3R(config.model)
    logger.info("%s", load_prior(model, config.initial))
    return model


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
    model = initial_model(config)
    if model is not None:
        model.config = replace(model.config, image_size=config.data.height)
        config = replace(config, model=model.config)
    objective = make_objective(config, world.device)
    pace = Pace()
    loader = open_loader(config, world, pace)
    validating = validate and config.runtime.validate_every > 0 and world.is_first
    last = config.schedule.steps if config.schedule.minutes is None else None
    if world.is_first:
        _report_left_out(loader)
    with Prefetcher(loader, config.data.workers, last=last) as batches:
        outcome = train(
            config,
            run,
            batches,
            objective,
            model=model,
            resume=resume,
            validator=make_validator(config) if validating else None,
            world=world,
            pace=pace,
        )
    if world.is_first:
        for reason, count in getattr(loader, "rejected", {}).items():
            logger.info("%d samples were drawn again: %s", count, reason)
    return outcome


def _report_left_out(loader: Loader) -> None:
    """Counts the clips, and names what the source leaves out."""
    source = getattr(loader, "source", None)
    if source is None or isinstance(source, WorldStream):
        return
    left_out = getattr(source, "rejected", ())
    logger.info("%d clips; %d left out", len(source), len(left_out))
    for rejection in left_out[:MOST_NAMED]:
        logger.warning("left out %s: %s", rejection.name, rejection.reason)
    if len(left_out) > MOST_NAMED:
        logger.warning("... and %d more", len(left_out) - MOST_NAMED)
