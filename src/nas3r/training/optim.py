"""Optimiser: parameter groups, learning-rate schedule, clipping, and skipping of bad steps."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from nas3r.training.config import GroupRule, OptimConfig, ScheduleConfig
from nas3r.training.sharding import is_sharded, like, load_spread, local, names_in, scatter_into


def learning_rate(
    schedule: ScheduleConfig, base: float, multiplier: float, step: int, progress: float | None = None
) -> float:
    """Learning rate of a parameter group: linear warm-up, then cosine.

    Args:
        schedule: Its shape.
        base: Main peak learning rate.
        multiplier: Of the group.
        step: Number of updates already made.
        progress: Fraction of a time budget that has passed, where the run has one; the cosine follows it.
    """
    peak = base * multiplier
    if step < schedule.warmup_steps:
        return peak * (schedule.warmup_start + (1 - schedule.warmup_start) * step / schedule.warmup_steps)
    floor = schedule.final * (base if schedule.absolute_floor else peak)
    if progress is None:
        span = schedule.steps - (0 if schedule.cosine_includes_warmup else schedule.warmup_steps)
        progress = (step - schedule.warmup_steps) / max(span, 1)
    return floor + (peak - floor) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def _is_matrix_of_trunk(name: str, parameter: Tensor) -> bool:
    """Whether Muon is meant for it: a hidden matrix, not an embedding, token or output layer."""
    return parameter.ndim == 2 and "block" in name and min(parameter.shape) > 1


def _matching_rule(name: str, rules: Iterable[GroupRule]) -> GroupRule:
    return next((rule for rule in rules if re.search(rule.pattern, name)), GroupRule(""))


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Parameters that share learning rate, weight decay and algorithm; every trainable one exactly once.

    Each group has the keys `params`, `names`, `muon`, `weight_decay`, `multiplier` and `frozen_until`.

    Raises:
        ValueError: If a rule matches no parameter: most likely a misspelt name.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad and p.numel()]
    for rule in config.rules:
        if not any(re.search(rule.pattern, name) for name, _ in named):
            raise ValueError(f"optimiser: rule {rule.pattern!r} matches no parameter of the model")
    groups: dict[tuple[float, int, float, bool], dict[str, Any]] = {}
    for name, parameter in named:
        rule = _matching_rule(name, config.rules)
        decay = config.weight_decay if config.decay == "all" or parameter.ndim > 1 else 0.0
        muon = config.optimizer == "muon" and _is_matrix_of_trunk(name, parameter)
        group = groups.setdefault(
            (rule.lr, rule.frozen_until, decay, muon),
            {
                "params": [],
                "names": [],
                "muon": muon,
                "weight_decay": decay,
                "multiplier": rule.lr,
                "frozen_until": rule.frozen_until,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


class Optimizer:
    """AdamW (or Muon with AdamW) that clips, skips bad steps and counts them, without waiting for the device.

    Attributes:
        skipped: Number of skipped updates so far, a tensor on the device.
        rate: Main learning rate of the last step.
        gradient_norm: Of the last step, before clipping, a tensor on the device.
    """

    def __init__(self, model: nn.Module, config: OptimConfig, schedule: ScheduleConfig) -> None:
        self.config, self.schedule = config, schedule
        groups = parameter_groups(model, config)
        self._sharded = is_sharded(model)
        if self._sharded and config.optimizer == "muon":
            raise ValueError("--fsdp: muon needs whole matrices; use --optimizer adamw")
        # What is updated: the parameters, or this process's slices of them, which are plain tensors.
        self._whole = {name: p for g in groups for name, p in zip(g["names"], g["params"])}
        self._slices = {name: _slice(p) if self._sharded else p for name, p in self._whole.items()}
        self._updated: set[str] = set()  # names of parameters that have had a gradient
        for group in groups:
            group["params"] = [self._slices[name] for name in group["names"]]
        self.parameters = list(self._slices.values())
        device = self.parameters[0].device
        self.algorithms: list[torch.optim.Optimizer] = []
        adam = [g for g in groups if not g["muon"]]
        if adam:
            self.algorithms.append(torch.optim.AdamW(adam, lr=config.lr, betas=config.betas, fused=True))
        muon = [g for g in groups if g["muon"]]
        if muon:
            # Scaled so that an update has the size AdamW's would have: one learning rate serves both.
            self.algorithms.append(torch.optim.Muon(muon, lr=config.lr, adjust_lr_fn="match_rms_adamw"))
        self.rate = config.lr
        self.skipped = torch.zeros((), device=device)
        self.gradient_norm = torch.zeros((), device=device)

    def set_learning_rates(self, step: int, progress: float | None = None) -> None:
        """Sets the rates for a step; with a time budget, frozen phases are shares of it."""
        nominal = step if progress is None else int(progress * self.schedule.steps)
        for group in (g for algorithm in self.algorithms for g in algorithm.param_groups):
            rate = learning_rate(self.schedule, self.config.lr, group["multiplier"], step, progress)
            group["lr"] = rate if nominal >= group["frozen_until"] else 0.0
        self.rate = learning_rate(self.schedule, self.config.lr, 1.0, step, progress)

    @torch.no_grad()
    def step(self) -> None:
        """Updates the parameters from their gradients, or counts a skip; clears the gradients."""
        self._take_slices()
        gradients = [p.grad for p in self._counted() if p.grad is not None and p.numel()]
        largest = torch.stack(torch._foreach_norm(gradients, torch.inf)).max()
        self.gradient_norm = torch.stack(torch._foreach_norm(gradients)).norm()
        bad = ~(largest <= self.config.skip_above)  # this way round NaN is bad too
        if self._sharded:  # each process has seen slices only
            sums = torch.stack([self.gradient_norm.square(), bad.float()])
            dist.all_reduce(sums)
            self.gradient_norm, bad = sums[0].sqrt(), sums[1] > 0
        self.skipped += bad
        # The fused kernel divides gradients by `scale` and leaves everything as it was where `bad` is set.
        scale = (self.gradient_norm / self.config.clip_norm).clamp_min(1.0)
        for algorithm in self.algorithms:
            if isinstance(algorithm, torch.optim.AdamW):
                algorithm.grad_scale, algorithm.found_inf = scale, bad.float()  # type: ignore[attr-defined]
                algorithm.step()
            elif not bad:  # Muon has no such kernel: this waits for the device
                gradients = [
                    p.grad for g in algorithm.param_groups for p in g["params"] if p.grad is not None
                ]
                torch._foreach_div_(gradients, scale)
                algorithm.step()
        for p in (*self.parameters, *self._whole.values()):
            p.grad = None

    def _take_slices(self) -> None:
        """Where parameters are spread: their slices, which may have moved, and the slices' gradients."""
        for name, parameter in self._whole.items():
            if parameter.grad is not None:
                self._updated.add(name)
            if self._sharded:
                slice_ = self._slices[name]
                if not isinstance(parameter, DTensor) and parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= dist.get_world_size()
                slice_.data = local(parameter.detach())
                slice_.grad = None if parameter.grad is None else local(parameter.grad)

    def _counted(self) -> list[Tensor]:
        """This process's part of the gradient's norm; what all processes have counts in the first one."""
        if not self._sharded or dist.get_rank() == 0:
            return list(self._slices.values())
        return [self._slices[name] for name, p in self._whole.items() if isinstance(p, DTensor)]

    def moments(self) -> dict[str, Tensor]:
        """AdamW's state by "NAME.KEY", spread as the parameters are: for any number of processes."""
        found = {}
        for name in sorted(self._updated):
            state = self._state_of(name)
            for key, value in state.items():
                found[f"{name}.{key}"] = value if value.ndim == 0 else like(value, self._whole[name])
        return found

    def _state_of(self, name: str) -> dict[str, Tensor]:
        """AdamW's state of a parameter, made if it has had no update here."""
        parameter = self._slices[name]
        (algorithm,) = self.algorithms
        state = algorithm.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    def load_spread(self, folder: Path) -> None:
        """Restores moments that any number of processes wrote.

        Raises:
            ValueError: If they belong to another model, or this optimiser has no such moments.
        """
        if len(self.algorithms) != 1 or not isinstance(self.algorithms[0], torch.optim.AdamW):
            raise ValueError("optimiser: the stored state belongs to another choice of optimiser")
        stored = names_in(folder)
        self._updated = {name for name in self._whole if f"{name}.step" in stored}
        load_spread(self.moments(), folder)

    def load_whole(self, state: dict[str, Any]) -> None:
        """Restores what a run without sharding stored, into slices.

        Raises:
            ValueError: If the state belongs to another model or another choice of optimiser.
        """
        if len(state["algorithms"]) != 1:
            raise ValueError("optimiser: the stored state belongs to another choice of optimiser")
        (stored,) = state["algorithms"]
        whole = {}
        for group in stored["param_groups"]:
            for name, number in zip(group["names"], group["params"], strict=True):
                for key, value in stored["state"].get(number, {}).items():
                    whole[f"{name}.{key}"] = value
        self._updated = {name.removesuffix(".step") for name in whole if name.endswith(".step")}
        if not self._updated <= self._whole.keys():
            raise ValueError("optimiser: the stored state belongs to another model")
        scatter_into(self.moments(), whole)
        self.skipped.copy_(state["skipped"])

    def state_dict(self) -> dict[str, Any]:
        """Moments, counters and the number of skipped steps."""
        return {
            "algorithms": [algorithm.state_dict() for algorithm in self.algorithms],
            "skipped": self.skipped.cpu(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            ValueError: If the state belongs to another model or another choice of optimiser.
        """
        if len(state["algorithms"]) != len(self.algorithms):
            raise ValueError("optimiser: the stored state belongs to another choice of optimiser")
        for algorithm, stored in zip(self.algorithms, state["algorithms"]):
            algorithm.load_state_dict(stored)
        self._updated = {
            name
            for name, p in self._slices.items()
            if any(p in algorithm.state for algorithm in self.algorithms)
        }
        self.skipped.copy_(state["skipped"])


def _slice(parameter: Tensor) -> nn.Parameter:
    """A parameter that shares memory with this process's slice of another one."""
    return nn.Parameter(local(parameter.detach()))


class WeightAverage:
    """Running average of the weights (EMA), often better than the last ones."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {k: local(v.detach()).clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average towards the model; faster at first, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = {k: local(v) for k, v in model.state_dict().items()}
        floating = [k for k, v in self.average.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in floating], [now[k] for k in floating], 1 - decay)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Restores the averaged weights."""
        for name, value in self.average.items():
            value.copy_(state[name])
