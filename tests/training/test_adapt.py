import pytest
import torch
import torch.nn.functional as F

from nas3r.models import NAS3R
from nas3r.training import adapt as module

adapt = module.adapt


@pytest.fixture
def frames() -> torch.Tensor:
    """A texture that slides by a pixel a frame."""
    wide = F.interpolate(torch.rand(1, 3, 6, 14), (16, 36), mode="bilinear")[0]
    return (torch.stack([wide[..., i : i + 16] for i in range(20)]) * 255).byte()


@pytest.fixture
def model(smallest) -> NAS3R:
    return NAS3R(smallest)


def test_gets_better_on_frames_it_never_trained_on(model, frames):
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    seen = []
    result = adapt(model, frames, steps=40, learning_rate=3e-3, on_step=lambda *a: seen.append(a))
    assert result.after < 0.95 * result.before
    assert 0 < result.best_step <= result.steps == 40
    assert seen[0] == (0, 0.0)
    assert seen[-1] == (40, 1.0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])  # the given model is not touched


def test_never_returns_anything_worse(model, frames):
    result = adapt(model, frames, steps=10, learning_rate=10.0)  # destroys the network
    assert result.after <= result.before
    if result.best_step == 0:
        for a, b in zip(model.parameters(), result.model.parameters()):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("seconds", "steps"), [(30.0, 16), (7.0, 3), (2.5, 0), (1.0, 0)])
def test_tests_are_part_of_the_time_budget(model, frames, monkeypatch, seconds, steps):
    """A step takes a second, a test two; a budget too short for a step is left."""
    now = [0.0]
    test, sample = module._held_out_loss, module._sample

    def takes(duration, function):
        def slow(*arguments):
            now[0] += duration
            return function(*arguments)

        return slow

    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "_held_out_loss", takes(2.0, test))
    monkeypatch.setattr(module, "_sample", takes(1.0, sample))
    seen = []
    result = adapt(model, frames, seconds=seconds, on_step=lambda *a: seen.append(a))
    assert seen[-1] == (result.steps, 1.0)
    assert result.steps >= steps
    if steps:
        assert seconds - 3 < now[0] <= seconds


@pytest.mark.parametrize("count", [6, 7, 11, 20])
def test_frames_that_are_tested_on_are_not_trained_on(model, count):
    numbered = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    split = module._split(numbered, widest_gap=8)
    train = split.train[:, 0, 0, 0].tolist()
    held_out = (split.tests.target[:, 0, 0, 0, 0] * 255).round().int().tolist()
    context = (split.tests.context[:, :, 0, 0, 0] * 255).round().int().tolist()
    assert sorted([*train, *held_out]) == list(range(count))
    assert all(left in train and right in train for left, right in context)
    assert all(left < target < right for (left, right), target in zip(context, held_out))


def test_the_shortest_clips_are_adapted_to(model, frames):
    assert adapt(model, frames[:6], steps=2).steps == 2


def test_bad_input_is_named(model, frames, smallest):
    with pytest.raises(ValueError, match="at least 6 frames"):
        adapt(model, frames[:5], steps=1)
    with pytest.raises(ValueError, match="either seconds"):
        adapt(model, frames)
    with pytest.raises(ValueError, match="divisible"):
        adapt(model, frames[..., :-1], steps=1)
