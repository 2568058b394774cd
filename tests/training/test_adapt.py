import pytest
import torch
import torch.nn.functional as F

from nas3r.models import NAS3R
from nas3r.training.adapt import adapt


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


def test_time_budget(model, frames):
    result = adapt(model, frames, seconds=2.0)
    assert result.steps > 0


@pytest.mark.parametrize("count", [6, 7, 11])
def test_short_clips(model, frames, count):
    assert adapt(model, frames[:count], steps=2).steps == 2


def test_bad_input_is_named(model, frames, smallest):
    with pytest.raises(ValueError, match="at least 6 frames"):
        adapt(model, frames[:5], steps=1)
    with pytest.raises(ValueError, match="either seconds"):
        adapt(model, frames)
    with pytest.raises(ValueError, match="divisible"):
        adapt(model, frames[..., :-1], steps=1)
