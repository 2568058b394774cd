"""`Trainer`: everything a run is made of between two steps."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nas3r.models import NAS3R, build
from nas3r.training.config import TrainConfig
from nas3r.training.distributed import World
from nas3r.training.optim import Optimizer, WeightAverage
from nas3r.training.pace import Pace
from nas3r.training.sharding import gathered, like, save_spread, scatter_into, shard
from nas3r.training.state import Checkpoint, CheckpointFolder
from nas3r.training.step import StepFunction, StepOutput

AGREE_EVERY = 8  # steps between the moments when several processes agree on stopping and on the time


class Loader(Protocol):
    """Batches as a pure function of the step, so that a resumed run sees what an uninterrupted one would."""

    def batch(self, step: int) -> Any:
        """This process's part of the batch of a step: a `ViewBatch`, or a `LabelledBatch` for supervision."""
        ...


Validator = Callable[[NAS3R], dict[str, float]]


class Trainer:
    """State of a run between two steps, and what happens at the intervals."""

    def __init__(
        self,
        config: TrainConfig,
        run: Path,
        model: NAS3R,
        loader: Loader,
        step_function: StepFunction,
        *,
        world: World,
        validator: Validator | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.config, self.run, self.loader, self.step_function = config, run, loader, step_function
        self.world, self.validator, self.pace = world, validator, pace
        self.model = model.to(world.device).train()
        config.objective.prepare(self.model)
        self.model.set_activation_checkpointing(config.step.checkpointing)
        self.sharded = config.runtime.fsdp and world.size > 1
        if self.sharded:
            shard(self.model, world.device)
        self.optimizer = Optimizer(self.model, config.optim, config.schedule)
        self.average = WeightAverage(self.model, config.optim.ema) if config.optim.ema > 0 else None
        self.checkpoints = CheckpointFolder(run, config.runtime.keep)
        self.step = 0
        self.elapsed = 0.0  # seconds of training before this process started
        self.started = time.monotonic()
        self.validation: dict[str, float] = {}
        self._progress = 0.0
        self._wrapped: nn.Module = self.model
        if world.size > 1 and not self.sharded:
            # Variants leave some parameters without gradient (an unused confidence, say). `static_graph` is
            # faster but does not find its way through a dataclass: it leaves the first step unreduced.
            self._wrapped = DistributedDataParallel(
                self.model,
                device_ids=[world.device.index] if world.device.type == "cuda" else None,
                find_unused_parameters=True,
            )

    @property
    def seconds(self) -> float:
        """Training time so far, of interrupted parts too."""
        return self.elapsed + time.monotonic() - self.started

    def progress(self) -> float:
        """Fraction of the training done, by steps or by time; equal in all processes."""
        schedule = self.config.schedule
        if schedule.minutes is None:
            return min(self.step / schedule.steps, 1.0)
        if self.world.size == 1 or self.step % AGREE_EVERY == 0:
            seconds = self.world.mean(
                torch.tensor(self.seconds, dtype=torch.float64, device=self.world.device)
            )
            self._progress = min(seconds.item() / (60 * schedule.minutes), 1.0)
        return self._progress

    def take_step(self, progress: float) -> tuple[Any, StepOutput]:
        """One update; returns the batch and what came of it."""
        # Dropout draws from here: a function of the step, so that resuming repeats it.
        torch.manual_seed(hash((self.config.seed, self.step, self.world.rank)))
        by_time = self.config.schedule.minutes is not None
        self.optimizer.set_learning_rates(self.step, progress if by_time else None)
        if self.pace is not None:
            self.pace.step = int(progress * self.config.schedule.steps)
        batch = self.loader.batch(self.step).to(self.world.device)
        output = self.step_function(self._wrapped, batch, progress)
        output.loss.backward()
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model, self.step)
        self.step += 1
        return batch, output

    def whole_model(self) -> NAS3R | None:
        """A model with the weights as they are.

        Where they are spread over processes, all must ask, and the first one gets it.
        """
        return self._with(gathered(self.model.state_dict())) if self.sharded else self.model

    def averaged_model(self) -> NAS3R | None:
        """The same with the averaged weights, if the run keeps them."""
        if self.average is None:
            return None
        return self._with(gathered(self._spread_average()))

    def _spread_average(self) -> dict[str, Tensor]:
        assert self.average is not None
        whole = self.model.state_dict()
        return {name: like(value, whole[name]) for name, value in self.average.average.items()}

    def _with(self, weights: dict[str, Tensor]) -> NAS3R | None:
        if not self.world.is_first:
            return None
        model = build(self.config.model)
        model.load_state_dict(weights)
        return model.to(self.world.device)

    def best_model(self) -> NAS3R | None:
        """The same with the averaged weights where the run keeps them, else with those as trained."""
        return self.whole_model() if self.average is None else self.averaged_model()

    def save_checkpoint(self) -> None:
        """Writes a checkpoint: the first process all of it, or each its slices where they are spread."""
        training = {"step": self.step, "seconds": self.seconds}
        spread = None
        if self.sharded:
            training["skipped"] = self.optimizer.skipped.cpu()
            spread = partial(save_spread, self.optimizer.moments())
        elif self.world.is_first:
            training["optimizer"] = self.optimizer.state_dict()
        if self.sharded or self.world.is_first:
            model, average = self.whole_model(), self.averaged_model()
            self.checkpoints.save(self.step, model, training, average, spread=spread, world=self.world)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint, exactly.

        Raises:
            ValueError: If it belongs to another model.
        """
        scatter_into(self.model.state_dict(), load_file(checkpoint.weights))
        if self.average is not None:
            if checkpoint.average is None:
                raise ValueError(
                    f"{checkpoint.folder} has no averaged weights, but this run keeps an average"
                )
            scatter_into(self._spread_average(), load_file(checkpoint.average))
        training = checkpoint.training_state()
        if checkpoint.spread is not None:
            self.optimizer.load_spread(checkpoint.spread)
            self.optimizer.skipped.copy_(training["skipped"])
        elif self.sharded:
            self.optimizer.load_whole(training["optimizer"])
        else:
            self.optimizer.load_state_dict(training["optimizer"])
        self.step, self.elapsed = training["step"], training["seconds"]
        self.started = time.monotonic()

    def validate(self) -> dict[str, float]:
        """Measures on held-out scenes, with averaged weights if there are any (first process only)."""
        model = self.best_model() if self.sharded or self.validator is not None else None
        if self.validator is None or model is None or not self.world.is_first:
            return {}
        self.validation = self.validator(model)
        self.model.train()
        return self.validation
