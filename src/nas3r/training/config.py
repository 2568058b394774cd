"""Everything that defines a training run, as plain dataclasses that survive a round trip through JSON."""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from nas3r.losses import PhotometricConfig, SupervisedConfig
from nas3r.models import ModelConfig


@dataclass(frozen=True)
class DataConfig:
    """Which views a batch holds.

    Attributes:
        kind: "synthetic" worlds made on the spot, or "clips" read from `paths`.
        paths: Folders, videos, chunks or shards.
        size: Side of the square training image in pixels.
        batch_size: Scenes per step, over all processes.
        context_views: Most context views of a sample.
        target_views: Most target views of a sample.
        gap_start: Least and largest number of frames between first and last context at step 0.
        gap_end: The same after `gap_steps`.
        gap_steps: Steps over which the gap grows.
        pool: Clips kept in memory at a time ("synthetic").
        clip_frames: Frames of a synthetic clip.
    """

    kind: Literal["synthetic", "clips"] = "synthetic"
    paths: tuple[str, ...] = ()
    size: int = 32
    batch_size: int = 4
    context_views: int = 2
    target_views: int = 1
    gap_start: tuple[int, int] = (2, 4)
    gap_end: tuple[int, int] = (4, 12)
    gap_steps: int = 10_000
    pool: int = 512
    clip_frames: int = 24


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
            group of a tenth of it falls only to a tenth of its peak; False ends each at `final` times its own.
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
class StepConfig:
    """What one step does besides predicting, rendering and comparing.

    Attributes:
        context_weight: Weight of the photometric loss of the context views rendered at their own predicted
            cameras, relative to that of the targets; 0 does not render them (published).
        autocast: bfloat16 in the network on CUDA; geometry and renderer stay in float32.
        checkpointing: Trade time for memory: recompute activations in the backward pass.
    """

    context_weight: float = 0.0
    autocast: bool = True
    checkpointing: bool = False


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
    """

    log_every: int = 20
    panel_every: int = 1000
    validate_every: int = 1000
    checkpoint_every: int = 1000
    checkpoint_minutes: float = 10.0
    keep: int = 2
    tensorboard: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """A run. Recipes are instances of this; `dataclasses.replace` varies them.

    Attributes:
        name: Of the recipe.
        model: Network.
        data: Which views the batches hold.
        loss: Photometric loss.
        optim: Optimiser.
        schedule: Length and learning rate.
        step: Options of one step.
        runtime: Logging and checkpoints.
        supervised: Loss on labels instead of pixels; None for self-supervised training.
        initial: Weights to start from; None for random ones.
        seed: Of the initial weights, the data and dropout.
    """

    name: str
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: PhotometricConfig = field(default_factory=PhotometricConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    step: StepConfig = field(default_factory=StepConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    supervised: SupervisedConfig | None = None
    initial: str | None = None
    seed: int = 0


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values, as JSON gives them back (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(kind: Any, values: Any) -> Any:
    """A dataclass (or field of one) from plain values.

    Args:
        kind: Type to build.
        values: As returned by `to_dict`.

    Raises:
        ValueError: For fields the type does not have.
    """
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(kind)})
        if unknown:
            raise ValueError(f"{getattr(kind, '__name__', kind)}: unknown fields {unknown}")
        return kind(**{name: from_dict(hints[name], value) for name, value in values.items()})  # type: ignore[operator]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if values is None:
            return None
        return from_dict(next(a for a in arguments if a is not type(None)), values)
    if origin is tuple:
        kinds = [arguments[0]] * len(values) if arguments[-1] is ... else arguments
        return tuple(from_dict(k, v) for k, v in zip(kinds, values))
    return values
