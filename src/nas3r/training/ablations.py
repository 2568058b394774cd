"""What is lost when a part of the method is taken away: functions from a configuration to another.

config = ablations.without_mask(recipes.get("tiny-synthetic"))
"""

from collections.abc import Callable
from dataclasses import replace

from nas3r.models import ablations as models
from nas3r.models import presets
from nas3r.training.config import TrainConfig
from nas3r.training.objectives import Matching


def canonical_points(config: TrainConfig) -> TrainConfig:
    """3D points are regressed directly in the first camera's frame, not lifted from depth."""
    return replace(config, model=models.canonical_points(config.model))


def without_mask(config: TrainConfig) -> TrainConfig:
    """Context views see the targets: the wall between what is given and what is asked is gone."""
    return replace(config, model=models.without_mask(config.model))


def without_backdrop(config: TrainConfig) -> TrainConfig:
    """What no context view shows stays black."""
    return replace(config, model=models.without_backdrop(config.model))


def without_curriculum(config: TrainConfig) -> TrainConfig:
    """Context views are as far apart from the first step on as they are at the end."""
    schedule = replace(config.data.sampler.schedule, warm_up=0)
    return replace(config, data=replace(config.data, sampler=replace(config.data.sampler, schedule=schedule)))


def given_intrinsics(config: TrainConfig) -> TrainConfig:
    """The network is told the true intrinsics (of synthetic or posed data) instead of predicting them."""
    model = config.model
    if not model.needs_intrinsics:
        model = presets.given_intrinsics(model)
    return replace(_without_rules(config, "focal"), model=model)


def fixed_matching(config: TrainConfig) -> TrainConfig:
    """What views are matched by stays as it is in the weights that the run starts from.

    Raises:
        ValueError: If the run starts from random weights, or learns nothing else.
    """
    if config.initial is None:
        raise ValueError("matching can only be left as it is in weights that have learnt it; none are named")
    if isinstance(config.objective, Matching):
        raise ValueError(f"{config.name!r} learns nothing but matching, so that cannot be left as it is")
    objective = replace(config.objective, matching_weight=0.0)
    return replace(_without_rules(config, "matcher"), objective=objective)


ABLATIONS: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    function.__name__: function
    for function in (
        canonical_points,
        without_mask,
        without_backdrop,
        without_curriculum,
        given_intrinsics,
        fixed_matching,
    )
}


def _without_rules(config: TrainConfig, part: str) -> TrainConfig:
    """Without the learning rates of a part of the network that the optimiser no longer finds."""
    rules = tuple(rule for rule in config.optim.rules if part not in rule.pattern)
    return replace(config, optim=replace(config.optim, rules=rules))
