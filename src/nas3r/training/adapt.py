"""Test-time adaptation: because training needs no labels, a model can be trained on the very clip it is to
reconstruct."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from nas3r.data.clips import ViewBatch
from nas3r.data.sampling import SAMPLE, GapSchedule, ViewSampler, random_generator
from nas3r.losses import PhotometricConfig
from nas3r.models import NAS3R
from nas3r.training.config import OptimConfig, ScheduleConfig
from nas3r.training.objectives import Photometric
from nas3r.training.optim import Optimizer
from nas3r.training.step import StepConfig, StepFunction

HELD_OUT_EVERY = 5  # one frame in so many is never trained on
MOST_TESTS = 16  # held-out frames that are looked at
LEAST_FRAMES = 6
TESTS_PER_RUN = 10  # how often the held-out loss is measured


@dataclass(frozen=True)
class Adaptation:
    """What adapting to a clip brought.

    Attributes:
        model: The best one seen on the held-out frames, in eval mode; the given one if none was better.
        before: Photometric loss of the given model on the held-out frames.
        after: The same of `model`; never larger.
        steps: Number of updates made.
        best_step: Updates after which `model` was taken; 0 is the given one.
    """

    model: NAS3R
    before: float
    after: float
    steps: int
    best_step: int


@dataclass(frozen=True)
class _Split:
    """Frames to train on, and triples (context, context, held-out frame) to test on."""

    train: UInt8[Tensor, "n 3 h w"]
    tests: ViewBatch


def adapt(
    model: NAS3R,
    frames: UInt8[Tensor, "n 3 h w"],
    *,
    seconds: float | None = None,
    steps: int | None = None,
    widest_gap: int = 8,
    learning_rate: float = 1e-4,
    batch_size: int = 4,
    perceptual: PhotometricConfig | None = None,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> Adaptation:
    """Fine-tunes a copy of a model on a clip, with the loss it was trained with: pixels alone.

    Args:
        model: Not changed.
        frames: Of one static scene in the order of their taking, RGB; sides divisible by the patch size.
        seconds: Budget of time; or
        steps: number of updates. Exactly one of the two.
        widest_gap: Most frames between two context views.
        learning_rate: Peak; a tenth of a training's is safe.
        batch_size: Samples per update.
        perceptual: Photometric loss; squared error alone if None.
        seed: Of the samples.
        on_step: Called with the number of updates and the fraction of the budget spent.

    Raises:
        ValueError: With too few frames, frames of an unusable size, a model that must be given intrinsics, or
            not exactly one budget.
    """
    if (seconds is None) == (steps is None) or (seconds or steps or 0) <= 0:
        raise ValueError(f"adapt: expected either seconds > 0 or steps > 0, got {seconds} and {steps}")
    if model.config.needs_intrinsics:
        raise ValueError("adapt: this model must be given intrinsics, which a clip alone does not have")
    device = next(model.parameters()).device
    take_step = Photometric(perceptual or PhotometricConfig()).make_step(model.config, StepConfig(), device)
    split = _split(frames, widest_gap)
    sampler = ViewSampler(GapSchedule((2, 2), (2, max(2, min(widest_gap, len(split.train) - 1))), 0))
    student = copy.deepcopy(model).train()
    schedule = ScheduleConfig(steps=steps or 1, minutes=seconds / 60 if seconds else None, warmup_steps=20)
    optimizer = Optimizer(student, OptimConfig(lr=learning_rate, decay="matrices"), schedule)
    before = _held_out_loss(student, split.tests, take_step)
    best, best_step, best_state = before, 0, copy.deepcopy(student.state_dict())
    started, step, tested = time.monotonic(), 0, 0
    while True:
        spent = step / steps if steps else (time.monotonic() - started) / (seconds or 1.0)
        if step and (spent >= (tested + 1) / TESTS_PER_RUN or spent >= 1):
            tested = int(spent * TESTS_PER_RUN)
            now = _held_out_loss(student, split.tests, take_step)
            if now < best:
                best, best_step, best_state = now, step, copy.deepcopy(student.state_dict())
        if on_step is not None:
            on_step(step, min(spent, 1.0))
        if spent >= 1:
            break
        torch.manual_seed(hash((seed, step)))
        batch = _sample(split.train, sampler, batch_size, seed, step).to(device)
        optimizer.set_learning_rates(step, spent if seconds else None)
        take_step(student, batch, 1.0).loss.backward()
        optimizer.step()
        step += 1
    student.load_state_dict(best_state)
    return Adaptation(student.eval(), before, best, step, best_step)


def _split(frames: UInt8[Tensor, "n 3 h w"], widest_gap: int) -> _Split:
    n = len(frames)
    if n < LEAST_FRAMES:
        raise ValueError(f"adapt: expected at least {LEAST_FRAMES} frames, got {n}")
    held_out = range(HELD_OUT_EVERY // 2, n - 1, HELD_OUT_EVERY)
    train = [i for i in range(n) if i not in held_out]
    chosen = [held_out[round(k)] for k in torch.linspace(0, len(held_out) - 1, MOST_TESTS).tolist()]
    reach = max(widest_gap // 2, 1)
    triples = []
    for target in sorted(set(chosen)):
        left = max(i for i in train if i < target and (i <= target - reach or i == min(train)))
        right = min(i for i in train if i > target and (i >= target + reach or i == max(train)))
        triples.append([left, right, target])
    views = frames[torch.tensor(triples)].float() / 255
    return _Split(frames[train], ViewBatch(views[:, :2], views[:, 2:]))


def _sample(
    frames: UInt8[Tensor, "n 3 h w"], sampler: ViewSampler, batch_size: int, seed: int, step: int
) -> ViewBatch:
    picked = []
    for place in range(batch_size):
        rng = random_generator(SAMPLE, seed, step, place)
        sample = sampler.sample(len(frames), step, rng)
        assert sample is not None  # the gap was limited to the number of frames
        views = frames[[*sample.context, *sample.target]]
        picked.append(views.flip(-1) if rng.integers(0, 2) else views)
    images = torch.stack(picked).float() / 255
    return ViewBatch(images[:, : sampler.context_views], images[:, sampler.context_views :])


@torch.no_grad()
def _held_out_loss(model: NAS3R, tests: ViewBatch, take_step: StepFunction) -> float:
    """Mean photometric loss over the held-out frames; leaves the model in train mode."""
    model.eval()
    device = next(model.parameters()).device
    total = 0.0
    for i in range(len(tests.context)):
        one = ViewBatch(tests.context[i : i + 1], tests.target[i : i + 1]).to(device)
        total += take_step(model, one, 1.0).loss.item()
    model.train()
    return total / len(tests.context)
