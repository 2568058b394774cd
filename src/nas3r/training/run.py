"""From a configuration to a finished run: opens the data, builds network and objective, trains."""

import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from nas3r.data.synthetic.streams import WorldStream
from nas3r.models import NAS3R, build, load
from nas3r.models.looking_across import looking_across
from nas3r.models.priors import load_prior
from nas3r.training.config import TrainConfig, located
from nas3r.training.distributed import World, join_world
from nas3r.training.loop import Outcome, train
from nas3r.training.memory import require_training_fit
from nas3r.training.pace import Pace
from nas3r.training.prefetch import Prefetcher
from nas3r.training.sources import open_loader
from nas3r.training.trainer import Loader, Validator
from nas3r.training.validate import SyntheticValidator

logger = logging.getLogger(__name__)

VALIDATION_GAP = 12  # frames, where the training data have no natural one for synthetic worlds

MOST_NAMED = 10  # clips left out that are named one by one


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
        ValueError: If the recipe starts from weights and none are named, or they are of a network that is not
            told the intrinsics although the recipe's is.
    """
    if config.initial is None:
        if config.prior is not None:
            raise ValueError(f"recipe {config.name!r} starts from {config.prior} weights: --weights FILE")
        return None
    if config.prior is None:
        model = load(config.initial, device="cpu")
        if config.model.needs_intrinsics and not model.config.needs_intrinsics:
            raise ValueError(f"{config.initial}: holds a network that cannot be told the intrinsics")
        torch.manual_seed(config.seed)
        model = looking_across(model, config.model)
        # Out of the file that weights are mapped from: how it lies in memory decides the last bit of sums,
        # and a resumed run, whose weights come from elsewhere, would differ.
        return copy.deepcopy(model)
    torch.manual_seed(config.seed)
    model = build(config.model)
    logger.info("%s", load_prior(model, config.initial))
    return model


def run_training(
    config: TrainConfig, run: Path, *, resume: bool = False, world: World | None = None
) -> Outcome:
    """Trains as configured.

    Args:
        config: The run. One that is resumed is described in its folder: `state.stored_config(run)`.
        run: Its folder.
        resume: Continue from the newest valid checkpoint there.
        world: Processes that train together.

    Raises:
        ValueError: If data, weights or options do not fit.
    """
    world = world or join_world()
    if config.runtime.threads is not None:
        torch.set_num_threads(config.runtime.threads)
    config, start = _beginning(located(config), resume)
    require_training_fit(config, world)
    step_function = config.objective.make_step(config.model, config.step, world.device)
    pace = Pace()
    loader = open_loader(config, world, pace)
    validating = config.runtime.validate_every > 0 and world.is_first
    last = config.schedule.steps if config.schedule.minutes is None else None
    if world.is_first:
        _report_left_out(loader)
    with Prefetcher(loader, config.data.workers, last=last) as batches:
        outcome = train(
            config,
            run,
            batches,
            step_function,
            start=start,
            resume=resume,
            validator=make_validator(config) if validating else None,
            world=world,
            pace=pace,
        )
    if world.is_first:
        for reason, count in getattr(loader, "rejected", {}).items():
            logger.info("%d samples were drawn again: %s", count, reason)
    return outcome


def _beginning(config: TrainConfig, resume: bool) -> tuple[TrainConfig, Callable[[], NAS3R] | None]:
    """The run with the network of the weights it starts from, and what makes that; None for random weights.

    The weights need not be there any more when a run is resumed: its network is stored, and only a run that
    was stopped before its first checkpoint begins with them again.
    """
    if resume and config.initial is not None:
        return config, lambda: _sized(initial_model(config), config)
    model = None if resume else initial_model(config)
    if model is None:
        return config, None
    model = _sized(model, config)
    return replace(config, model=model.config), lambda: model


def _sized(model: NAS3R | None, config: TrainConfig) -> NAS3R:
    """The model, which remembers the size of the images that it is trained on."""
    assert model is not None
    model.config = replace(model.config, image_size=config.data.height)
    return model


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
