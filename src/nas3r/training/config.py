"""Everything that defines a training run, as plain dataclasses that survive a round trip through JSON."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from nas3r.data.sampling import GapSchedule, MotionSchedule, ViewDropout, ViewSampler
from nas3r.data.synthetic.config import SyntheticConfig
from nas3r.losses.lpips import WEIGHTS_VARIABLE
from nas3r.models import ModelConfig
from nas3r.training.objectives import Objective, Photometric
from nas3r.training.step import StepConfig


@dataclass(frozen=True)
class MixturePart:
    """How one of several data sets takes part in a run.

    Attributes:
        weight: How often it is drawn from, in proportion to the others.
        schedule: Its own gaps, where its frames lie closer or farther apart; None for those of the sampler.
    """

    weight: float = 1.0
    schedule: GapSchedule | MotionSchedule | None = None


@dataclass(frozen=True)
class DataConfig:
    """Which views a batch holds.

    Attributes:
        kind: "synthetic" worlds made on the spot, or "clips" read from `paths`.
        paths: Folders, videos, chunks or shards of clips.
        mixture: How each of the paths takes part; empty visits all clips equally often.
        height: Of the training images in pixels.
        width: Likewise.
        batch_size: Scenes per step, over all processes.
        sampler: Frames of a sample, with the curriculum of the gap.
        dropout: Whether the numbers of context and target views vary from step to step.
        flip: Mirror half of the samples.
        synthetic: What the worlds are made of.
        pool: Synthetic clips kept as pixels in the training device's memory, from which batches are drawn; 0
            renders each sample's frames anew.
        reuse: How often a synthetic clip is drawn (with other frames) before another takes its place.
        workers: Threads that prepare batches ahead; 0 prepares them in the step itself.
        split_shards: Each machine reads a part of the shards of its own; what a batch holds then depends on
            the number of machines.
    """

    kind: Literal["synthetic", "clips"] = "synthetic"
    paths: tuple[str, ...] = ()
    mixture: tuple[MixturePart, ...] = ()
    height: int = 32
    width: int = 32
    batch_size: int = 4
    sampler: ViewSampler = field(default_factory=lambda: ViewSampler(GapSchedule((2, 4), (4, 16), 10_000)))
    dropout: ViewDropout | None = None
    flip: bool = True
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    pool: int = 0
    reuse: int = 4
    workers: int = 1
    split_shards: bool = False

    def part_samplers(self) -> tuple[ViewSampler, ...]:
        """Samplers of the paths of a mixture; empty without one."""
        return tuple(
            replace(self.sampler, schedule=p.schedule or self.sampler.schedule) for p in self.mixture
        )


@dataclass(frozen=True)
class GroupRule:
    """A learning rate of its own for some parameters.

    Attributes:
        pattern: Regular expression searched in the parameter's name; the first rule that matches wins.
        lr: Multiplier of the learning rate.
        frozen_until: Step at which these parameters start to move.
    """

    pattern: str
    lr: float = 1.0
    frozen_until: int = 0


@dataclass(frozen=True)
class OptimConfig:
    """How gradients become updates.

    Attributes:
        optimizer: "adamw", or "muon" for the matrices of the network with AdamW for all the rest.
        lr: Peak learning rate.
        betas: Of AdamW.
        weight_decay: Decoupled weight decay.
        decay: "all" parameters (published) or "matrices" only (no norms, biases and tokens).
        rules: Learning rates of parts of the network.
        clip_norm: Largest total gradient norm of an update; longer gradients are shortened.
        skip_above: An update is skipped if any gradient element is not finite or larger than this.
        ema: Decay of the running average of the weights per step; 0 keeps none.
    """

    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    decay: Literal["all", "matrices"] = "all"
    rules: tuple[GroupRule, ...] = ()
    clip_norm: float = 0.5
    skip_above: float = 20.0
    ema: float = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """Length of the training and the course of the learning rate.

    Attributes:
        steps: Number of steps.
        minutes: If given, the run ends after this training time instead, and the cosine follows the fraction
            of it that has passed. Such a run cannot be repeated bit for bit.
        warmup_steps: Of the linear rise of the learning rate.
        warmup_start: Fraction of the peak at step 0.
        final: Fraction of the peak at the end.
        cosine_includes_warmup: The published schedule stretches the cosine over all steps although it starts
            after the warm-up, so it ends slightly early on its way; False lets it reach its end.
        absolute_floor: The published schedule ends all groups at `final` times the MAIN learning rate, so a
            group of a tenth of it falls only to a tenth of its peak; False ends each at `final` of its own.
    """

    steps: int = 20_000
    minutes: float | None = None
    warmup_steps: int = 500
    warmup_start: float = 1 / 2000
    final: float = 0.01
    cosine_includes_warmup: bool = False
    absolute_floor: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.warmup_steps < 0:
            raise ValueError(
                f"schedule: expected steps >= 1 and warmup_steps >= 0, got {self.steps} and "
                f"{self.warmup_steps}"
            )
        if self.minutes is not None and self.minutes <= 0:
            raise ValueError(f"schedule: expected minutes > 0, got {self.minutes}")


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how often; nothing here changes what is learnt.

    Attributes:
        log_every: Steps between lines of the log.
        panel_every: Steps between pictures of target, rendering and depth; 0 for none.
        validate_every: Steps between validations; 0 for none.
        checkpoint_every: Steps between checkpoints.
        checkpoint_minutes: At most this much work is lost; also checkpoint after so many minutes.
        keep: Number of checkpoints kept, newest first.
        tensorboard: Also write TensorBoard events.
        threads: CPU threads of each process; None leaves that to torch.
        fsdp: Spread network and optimiser over the processes instead of a copy in each (no effect on one).
    """

    log_every: int = 20
    panel_every: int = 1000
    validate_every: int = 1000
    checkpoint_every: int = 1000
    checkpoint_minutes: float = 10.0
    keep: int = 2
    tensorboard: bool = False
    threads: int | None = None
    fsdp: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """A run. Recipes are instances of this; `dataclasses.replace` varies them.

    Attributes:
        name: Of the recipe.
        model: Network.
        data: Which views the batches hold; labels come with them where the objective needs some.
        objective: What it learns from.
        optim: Optimiser.
        schedule: Length and learning rate.
        step: How a step is computed.
        runtime: Logging and checkpoints.
        initial: Weights to start from; None for random ones.
        prior: What `initial` must hold if not weights of ours: "VGGT-1B" or "MASt3R".
        seed: Of the initial weights, the data and dropout.
    """

    name: str
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: Objective = field(default_factory=Photometric)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    step: StepConfig = field(default_factory=StepConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    initial: str | None = None
    prior: str | None = None
    seed: int = 0


def for_size(model: ModelConfig, size: int) -> ModelConfig:
    """The network for square training images of a size; it is stored with the weights.

    Raises:
        ValueError: If the patches do not divide it.
    """
    if size % model.patch_size:
        raise ValueError(f"--size {size}: expected a multiple of the patch size {model.patch_size}")
    return replace(model, image_size=size)


def of_length(config: TrainConfig, steps: int) -> TrainConfig:
    """The run stretched or shortened to a number of steps: warm-up, curriculum and frozen phases with it."""
    factor = steps / config.schedule.steps

    def scaled(count: int) -> int:
        return round(count * factor)

    def stretched(schedule: GapSchedule | MotionSchedule) -> GapSchedule | MotionSchedule:
        return replace(schedule, warm_up=scaled(schedule.warm_up))

    sampler = replace(config.data.sampler, schedule=stretched(config.data.sampler.schedule))
    mixture = tuple(
        replace(part, schedule=part.schedule and stretched(part.schedule)) for part in config.data.mixture
    )
    rules = tuple(replace(rule, frozen_until=scaled(rule.frozen_until)) for rule in config.optim.rules)
    return replace(
        config,
        data=replace(config.data, sampler=sampler, mixture=mixture),
        optim=replace(config.optim, rules=rules),
        schedule=replace(config.schedule, steps=steps, warmup_steps=scaled(config.schedule.warmup_steps)),
    )


def located(config: TrainConfig) -> TrainConfig:
    """The run with absolute paths, so that it can be continued from anywhere."""

    def absolute(path: str | None) -> str | None:
        return str(Path(path).absolute()) if path and Path(path).exists() else path  # else an address

    data, objective = config.data, config.objective
    data = replace(
        data,
        paths=tuple(str(absolute(path)) for path in data.paths),
        synthetic=replace(data.synthetic, photos=absolute(data.synthetic.photos)),
    )
    if isinstance(objective, Photometric) and objective.loss.perceptual == "lpips":
        weights = objective.loss.lpips_weights or os.environ.get(WEIGHTS_VARIABLE)
        objective = replace(objective, loss=replace(objective.loss, lpips_weights=absolute(weights)))
    # Weights may also be a preset or lie in a repository, by a name that a folder here may have too.
    is_file = config.initial is not None and Path(config.initial).is_file()
    initial = absolute(config.initial) if is_file else config.initial
    return replace(config, data=data, objective=objective, initial=initial)
