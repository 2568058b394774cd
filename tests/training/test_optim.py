import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas3r.training.config import GroupRule, OptimConfig, ScheduleConfig
from nas3r.training.optim import Optimizer, WeightAverage, learning_rate, parameter_groups

PUBLISHED = ScheduleConfig(
    steps=400_001, warmup_steps=2000, final=0.01, cosine_includes_warmup=True, absolute_floor=True
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(6, 4)
        self.norm = nn.LayerNorm(4)
        self.camera_head = nn.Linear(4, 2)
        self.token = nn.Parameter(torch.zeros(1, 0))  # an option that is off leaves an empty parameter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.camera_head(self.norm(self.block(x)))


def _backward(net: nn.Module, seed: int = 0, factor: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    (factor * net(torch.randn(3, 6, generator=generator)).square().mean()).backward()


@pytest.mark.parametrize(
    ("step", "main", "tenth"),
    [  # measured in the published implementation
        (0, 5e-8, 5e-9),
        (2000, 1e-4, 1e-5),
        (100_000, 8.605e-5, 8.732e-6),
        (200_000, 5.128e-5, 5.571e-6),
        (400_000, 1.0061e-6, 1.0006e-6),
    ],
)
def test_published_schedule(step, main, tenth):
    # The reference values are given to four or five digits.
    assert learning_rate(PUBLISHED, 1e-4, 1.0, step) == pytest.approx(main, rel=2e-4)
    assert learning_rate(PUBLISHED, 1e-4, 0.1, step) == pytest.approx(tenth, rel=2e-4)


@given(step=st.integers(0, 1999))
def test_warm_up_is_linear(step):
    expected = 1e-4 * (1 / 2000 + (1 - 1 / 2000) * step / 2000)
    assert learning_rate(PUBLISHED, 1e-4, 1.0, step) == pytest.approx(expected)


def test_own_schedule_ends_at_the_floor_of_each_group():
    schedule = ScheduleConfig(steps=1000, warmup_steps=100, final=0.05)
    assert learning_rate(schedule, 1.0, 0.1, 1000) == pytest.approx(0.005)
    assert learning_rate(schedule, 1.0, 1.0, 550) == pytest.approx(0.525)  # half way between 1 and 0.05


def test_cosine_follows_the_time_budget():
    schedule = ScheduleConfig(steps=10, minutes=5, warmup_steps=2, final=0.0)
    assert learning_rate(schedule, 1.0, 1.0, 5000, progress=0.5) == pytest.approx(0.5)
    assert learning_rate(schedule, 1.0, 1.0, 7, progress=1.0) == pytest.approx(0.0)


def test_groups_hold_every_parameter_once_and_follow_the_rules():
    net = Net()
    config = OptimConfig(decay="matrices", rules=(GroupRule("camera", lr=0.1, frozen_until=7),))
    groups = parameter_groups(net, config)
    held = [p for g in groups for p in g["params"]]
    assert len(held) == len({id(p) for p in held}) == 6  # the empty one has nothing to learn
    for group in groups:
        assert group["multiplier"] == (0.1 if "camera" in group["names"][0] else 1.0)
        assert group["weight_decay"] == (config.weight_decay if group["params"][0].ndim == 2 else 0.0)


def test_published_decay_reaches_every_parameter():
    assert {g["weight_decay"] for g in parameter_groups(Net(), OptimConfig(decay="all"))} == {0.05}


def test_a_rule_without_a_parameter_is_an_error():
    with pytest.raises(ValueError, match="'decodr'"):
        parameter_groups(Net(), OptimConfig(rules=(GroupRule("decodr"),)))


def test_frozen_groups_start_to_move_at_their_step():
    net = Net()
    config = OptimConfig(rules=(GroupRule("camera", frozen_until=2),))
    optimizer = Optimizer(net, config, ScheduleConfig(warmup_steps=0))
    before = net.camera_head.weight.detach().clone()
    for step in range(3):
        optimizer.set_learning_rates(step)
        _backward(net)
        optimizer.step()
        moved = not torch.equal(before, net.camera_head.weight)
        assert moved == (step >= 2)


def test_equals_plain_adamw_with_clipping():
    net, twin = Net(), Net()
    twin.load_state_dict(net.state_dict())
    optimizer = Optimizer(
        net, OptimConfig(lr=1e-2, clip_norm=0.1), ScheduleConfig(warmup_steps=0, steps=10**9)
    )
    plain = torch.optim.AdamW(twin.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.05)
    for step in range(5):
        optimizer.set_learning_rates(0)
        _backward(net, step, factor=10)
        _backward(twin, step, factor=10)
        norm = nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
        optimizer.step()
        plain.step()
        plain.zero_grad()
        assert optimizer.gradient_norm.item() == pytest.approx(norm.item(), rel=1e-6)
    for a, b in zip(net.parameters(), twin.parameters()):
        # The fused and the plain kernel order float32 operations differently; torch's clipping adds 1e-6.
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -30.0])
@pytest.mark.parametrize("algorithm", ["adamw", "muon"])
def test_bad_steps_change_nothing_and_are_counted(bad, algorithm):
    net = Net()
    optimizer = Optimizer(net, OptimConfig(optimizer=algorithm, skip_above=20.0), ScheduleConfig())
    optimizer.set_learning_rates(5)
    _backward(net)
    optimizer.step()
    weights = {k: v.clone() for k, v in net.state_dict().items()}
    state = json.dumps(optimizer.state_dict()["algorithms"], default=lambda t: t.tolist())
    _backward(net)
    assert net.block.weight.grad is not None
    net.block.weight.grad[1, 2] = bad
    optimizer.step()
    assert optimizer.skipped.item() == 1
    assert net.block.weight.grad is None
    for name, value in net.state_dict().items():
        assert torch.equal(value, weights[name])
    assert json.dumps(optimizer.state_dict()["algorithms"], default=lambda t: t.tolist()) == state


def test_gradients_up_to_the_limit_are_taken():
    net = Net()
    optimizer = Optimizer(net, OptimConfig(skip_above=20.0), ScheduleConfig())
    _backward(net)
    assert net.block.weight.grad is not None
    net.block.weight.grad[0, 0] = 20.0
    optimizer.step()
    assert optimizer.skipped.item() == 0


def test_muon_takes_the_matrices_of_blocks_and_adamw_the_rest():
    groups = parameter_groups(Net(), OptimConfig(optimizer="muon"))
    assert [g["names"] for g in groups if g["muon"]] == [["block.weight"]]
    torch.manual_seed(0)
    net = Net()
    optimizer = Optimizer(net, OptimConfig(optimizer="muon", lr=1e-2), ScheduleConfig(warmup_steps=0))
    inputs = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    first = net(inputs).square().mean().item()
    for step in range(40):
        optimizer.set_learning_rates(step)
        _backward(net)
        if step == 0:
            gradient = net.block.weight.grad.clone()
        optimizer.step()
        if step == 0:
            # Orthogonalised: the update of a matrix has singular values about 1, whatever the gradient's.
            update = (before["block.weight"] - net.block.weight.detach()) / 1e-2
            spread = torch.linalg.svdvals(gradient)
            values = torch.linalg.svdvals(update)
            assert values[0] / values[1] < 2 < spread[0] / spread[-1]
    assert net(inputs).square().mean().item() < 0.5 * first
    assert all(not torch.equal(p, before[name]) for name, p in net.named_parameters() if p.numel())


@pytest.mark.parametrize("algorithm", ["adamw", "muon"])
def test_state_round_trip_continues_exactly(algorithm, tmp_path):
    config = OptimConfig(optimizer=algorithm, lr=1e-2)
    net = Net()
    optimizer = Optimizer(net, config, ScheduleConfig(warmup_steps=0))
    for step in range(3):
        _backward(net, step)
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    copy = Net()
    copy.load_state_dict(net.state_dict())
    resumed = Optimizer(copy, config, ScheduleConfig(warmup_steps=0))
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in range(3, 6):
        for n, o in ((net, optimizer), (copy, resumed)):
            o.set_learning_rates(step)
            _backward(n, step)
            o.step()
    for a, b in zip(net.parameters(), copy.parameters()):
        assert torch.equal(a, b)


def test_state_of_another_optimiser_is_refused():
    state = Optimizer(Net(), OptimConfig(optimizer="muon"), ScheduleConfig()).state_dict()
    with pytest.raises(ValueError, match="another choice"):
        Optimizer(Net(), OptimConfig(), ScheduleConfig()).load_state_dict(state)


def test_average_forgets_its_start_and_then_smooths():
    net = Net()
    average = WeightAverage(net, 0.9)
    with torch.no_grad():
        net.block.weight.fill_(1.0)
    for step in range(200):
        average.update(net, step)
    # 200 updates at decay at most 0.9 leave 0.9^190 of the start.
    torch.testing.assert_close(average.average["block.weight"], net.block.weight.detach(), atol=1e-6, rtol=0)
    with torch.no_grad():
        net.block.weight.fill_(2.0)
    average.update(net, 1000)
    torch.testing.assert_close(average.average["block.weight"], torch.full((4, 6), 1.1), atol=1e-5, rtol=0)


def test_schedule_refuses_nonsense():
    with pytest.raises(ValueError, match="steps"):
        ScheduleConfig(steps=0)
    with pytest.raises(ValueError, match="minutes"):
        replace(ScheduleConfig(), minutes=0)
