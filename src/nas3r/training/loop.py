"""The training loop: batches in, updates, log lines, panels, validations and checkpoints out."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from nas3r.models import NAS3R, build, save
from nas3r.stopping import STOP_SIGNALS
from nas3r.training.config import TrainConfig
from nas3r.training.distributed import World, join_world
from nas3r.training.log import RunLog
from nas3r.training.pace import Pace
from nas3r.training.reporting import Reporter
from nas3r.training.state import CheckpointFolder, prepare_run
from nas3r.training.step import StepFunction
from nas3r.training.trainer import AGREE_EVERY, Loader, Trainer, Validator

FINAL_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        step: Number of updates made (skipped ones included).
        interrupted: Whether a signal stopped it; the newest checkpoint then holds this very step.
        weights: The weights to use: averaged where the run keeps an average.
        validation: Of the last validation, if any.
    """

    step: int
    interrupted: bool
    weights: Path
    validation: dict[str, float]


class _StopRequest:
    """Remembers Ctrl-C and signals that mean the same, so that the loop can end between two steps."""

    def __init__(self) -> None:
        self.requested = False

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: leave at once
        self.requested = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles the signals inside the context; does nothing outside the main thread, as it must."""
        previous = {}
        try:
            for number in STOP_SIGNALS:
                previous[number] = signal.signal(number, self._remember)
        except ValueError:  # not the main thread
            pass
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _due(trainer: Trainer, every: int) -> bool:
    return every > 0 and trainer.step % every == 0


def _finished(trainer: Trainer, progress: float) -> bool:
    if trainer.config.schedule.minutes is not None:
        return progress >= 1.0
    return trainer.step >= trainer.config.schedule.steps


def _run_steps(trainer: Trainer, reporter: Reporter, stop: _StopRequest) -> bool:
    """Steps until the end or a signal; returns whether a signal stopped it."""
    runtime, world = trainer.config.runtime, trainer.world
    saved_at = time.monotonic()
    while not _finished(trainer, progress := trainer.progress()):
        batch, output = trainer.take_step(progress)
        reporter.after_step(output, batch)
        if _due(trainer, runtime.validate_every):
            reporter.validate()
        overdue = time.monotonic() - saved_at > 60 * runtime.checkpoint_minutes
        if _due(trainer, runtime.checkpoint_every) or (overdue and world.size == 1):
            trainer.save_checkpoint()
            saved_at = time.monotonic()
        agreeing = world.size == 1 or trainer.step % AGREE_EVERY == 0
        if agreeing and world.agree(stop.requested):
            return True
    return False


def train(
    config: TrainConfig,
    run: Path,
    loader: Loader,
    step_function: StepFunction,
    *,
    start: Callable[[], NAS3R] | None = None,
    resume: bool = False,
    validator: Validator | None = None,
    world: World | None = None,
    pace: Pace | None = None,
) -> Outcome:
    """Trains a model.

    Args:
        config: Everything that defines the run; stored as `run/config.json`.
        run: Folder for log, panels, checkpoints and the final weights.
        loader: Gives this process's part of the batch of a step.
        step_function: Loss of a batch, e.g. what `config.objective` makes.
        start: Makes the model to start from, where no checkpoint is continued; random weights if None.
        resume: Continue from the newest valid checkpoint in `run`; from the start if there is none.
        validator: Measures a model on held-out scenes.
        world: Processes that train together; by default what `torchrun` describes.
        pace: Moved along with the progress of the run, for curricula that follow the clock.

    Raises:
        ValueError: If `run` holds a run and `resume` is False, or holds one with another configuration.
    """
    world = world or join_world()
    if world.is_first:
        prepare_run(run, config, resume=resume)
    world.barrier()
    checkpoint = CheckpointFolder(run, config.runtime.keep).newest_valid() if resume else None
    if start is not None and checkpoint is None:
        model = start()
    else:
        torch.manual_seed(config.seed)
        model = build(config.model)
    trainer = Trainer(config, run, model, loader, step_function, world=world, validator=validator, pace=pace)
    if checkpoint is not None:
        trainer.restore(checkpoint)
    log = RunLog(run, enabled=world.is_first, tensorboard=config.runtime.tensorboard, resume_at=trainer.step)
    reporter = Reporter(trainer, log)
    reporter.introduce()
    stop = _StopRequest()
    try:
        with stop.listening():
            interrupted = _run_steps(trainer, reporter, stop)
            if interrupted or trainer.checkpoints.newest_step() != trainer.step:
                trainer.save_checkpoint()
            reporter.write_line()
            if not interrupted and not _due(trainer, config.runtime.validate_every):
                reporter.validate()
        weights = run / FINAL_WEIGHTS
        if trainer.sharded or world.is_first:
            best = trainer.best_model()
            if best is not None and world.is_first:
                save(best, weights)
        world.barrier()
    finally:
        log.close()
    return Outcome(trainer.step, interrupted, weights, trainer.validation)
