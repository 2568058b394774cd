"""Test-time adaptation: because training needs no labels, a model can be trained on the very clip it is to
reconstruct."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
_TESTING = 1 / 3  # most of the time so far that tests before the last one may take


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
        seconds: Budget of time, of tests as well; it ends before a step and the last test that would not
            fit; or
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
    clock = _Clock(seconds)
    with clock.testing():
        before = _held_out_loss(student, split.tests, take_step)
    best, best_step, best_state = before, 0, copy.deepcopy(student.state_dict())
    step, tested = 0, 0
    while True:
        spent = step / steps if steps else clock.spent
        done = spent >= 1 or clock.runs_out
        if step and (done or (spent >= (tested + 1) / TESTS_PER_RUN and clock.may_test)):
            tested = int(spent * TESTS_PER_RUN)
            with clock.testing():
                now = _held_out_loss(student, split.tests, take_step)
            if now < best:
                best, best_step, best_state = now, step, copy.deepcopy(student.state_dict())
        if on_step is not None:
            on_step(step, 1.0 if done else spent)
        if done:
            break
        clock.step_begins()
        torch.manual_seed(hash((seed, step)))
        batch = _sample(split.train, sampler, batch_size, seed, step).to(device)
        optimizer.set_learning_rates(step, spent if seconds else None)
        take_step(student, batch, 1.0).loss.backward()
        optimizer.step()
        clock.step_ends()
        step += 1
    student.load_state_dict(best_state)
    return Adaptation(student.eval(), before, best, step, best_step)


class _Clock:
    """How much of a budget of time is spent, and whether another step and the last test still fit.

    Args:
        seconds: The budget; None: there is none, and everything fits.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._began = self._step_began = time.monotonic()
        self._step = self._test = self._testing = 0.0
        self._steps = 0

    @property
    def spent(self) -> float:
        """Fraction of the budget."""
        return 0.0 if self._seconds is None else (time.monotonic() - self._began) / self._seconds

    @property
    def runs_out(self) -> bool:
        """Whether a step and a test more would end after the budget, if they take what the last ones took."""
        if self._seconds is None:
            return False
        return self.spent + (self._step + self._test) / self._seconds > 1

    @property
    def may_test(self) -> bool:
        """Whether tests have left most of the time to steps."""
        return self._seconds is None or self._testing <= _TESTING * self.spent * self._seconds

    @contextmanager
    def testing(self) -> Iterator[None]:
        """Times a test."""
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        self._testing += took
        self._test = took

    def step_begins(self) -> None:
        """Before an update."""
        self._step_began = time.monotonic()

    def step_ends(self) -> None:
        """After it; the first one says nothing about the next, because kernels are compiled in it."""
        self._steps += 1
        if self._steps > 1:
            self._step = time.monotonic() - self._step_began


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
