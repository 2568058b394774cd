"""Networks spread over processes: the same losses, checkpoints for any number of processes."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import Sliding, make_config

from nas3r.models import build
from nas3r.training.config import OptimConfig, RuntimeConfig, ScheduleConfig
from nas3r.training.log import read_log
from nas3r.training.loop import train
from nas3r.training.optim import Optimizer
from nas3r.training.state import CheckpointFolder

CPU = torch.device("cpu")

# Few and small steps: later, rounding decides which of two Gaussians is drawn in front.
OPTIONS = {
    "optim": OptimConfig(lr=1e-5, ema=0.5),
    "schedule": ScheduleConfig(steps=4, warmup_steps=2),
    "runtime": RuntimeConfig(log_every=1, panel_every=0, checkpoint_every=2, keep=9, fsdp=True),
}

SCRIPT = """
import os, sys, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
from small_runs import Sliding, make_config
from nas3r.training.config import OptimConfig, RuntimeConfig, ScheduleConfig
from nas3r.training.loop import train
torch.set_num_threads(1)
config = make_config({options})
step = config.objective.make_step(config.model, config.step, torch.device("cpu"))
loader = Sliding(4, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
train(config, Path({run!r}), loader, step, resume=True, validator=None if int(os.environ["RANK"]) else
      lambda model: {{"weights": float(sum(p.double().sum() for p in model.parameters()))}})
"""


def spread(run: Path, processes: int, tmp_path: Path) -> None:
    """Trains, or goes on, in several processes."""
    options = ", ".join(f"{name}={value!r}" for name, value in OPTIONS.items())
    script = tmp_path / "rank.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), run=str(run), options=options))
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(script)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def alone(config, run: Path) -> None:
    """The same in this process."""
    config = replace(config, **OPTIONS)
    step = config.objective.make_step(config.model, config.step, CPU)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(config, run, Sliding(4), step, resume=True)
    torch.set_num_threads(threads)


def losses(run: Path) -> list[tuple[float, float]]:
    return [(x["loss"], x["gradient_norm"]) for x in read_log(run) if x["kind"] == "train"]


def back_to(run: Path, step: int, copy: Path) -> Path:
    """A copy of a run that was stopped after a step."""
    shutil.copytree(run, copy)
    for checkpoint in CheckpointFolder(copy, 9).all():
        if checkpoint.step > step:
            shutil.rmtree(checkpoint.folder)
    return copy


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run in one process and in two."""
    folder = tmp_path_factory.mktemp("runs")
    alone(make_config(), folder / "one")
    spread(folder / "two", 2, folder)
    return folder


def assert_same(run: Path, other: Path) -> None:
    for (a, norm_a), (b, norm_b) in zip(losses(run), losses(other), strict=True):
        # Sums over halves of a batch round differently in float32, and updates carry that along.
        assert b == pytest.approx(a, rel=1e-4)
        assert norm_b == pytest.approx(norm_a, rel=1e-3)
    config = make_config()
    torch.manual_seed(config.seed)
    begin = build(config.model).state_dict()
    first, second = (load_file(r / "checkpoints/step_000000004/model.safetensors") for r in (run, other))
    assert first.keys() == second.keys() == begin.keys()
    # AdamW makes a whole step of a gradient that is nothing but rounding: few weights differ, and by a step.
    moved = torch.cat([(first[k] - begin[k]).flatten() for k in begin])
    apart = torch.cat([(second[k] - first[k]).flatten() for k in begin])
    assert apart.norm() < 0.1 * moved.norm()
    assert (apart.abs() > 1e-7).float().mean() < 0.05


def test_two_processes_with_slices_learn_what_one_with_all_does(runs):
    assert len(losses(runs / "two")) == 4
    assert_same(runs / "one", runs / "two")
    checkpoint = CheckpointFolder(runs / "two", 9).newest_valid()
    assert checkpoint is not None
    assert checkpoint.spread is not None
    assert list(checkpoint.spread.glob("__1_*"))  # the second process wrote its slices
    assert CheckpointFolder(runs / "one", 9).all()[0].spread is None


def test_validation_sees_the_whole_averaged_network(runs):
    (line,) = [x for x in read_log(runs / "two") if x["kind"] == "validation"]
    whole = load_file(runs / "two" / "model.safetensors")
    assert line["weights"] == pytest.approx(float(sum(v.double().sum() for v in whole.values())), rel=1e-6)


def test_a_run_of_two_goes_on_in_one_and_of_one_in_two(runs, config, tmp_path):
    fewer = back_to(runs / "two", 2, tmp_path / "fewer")
    alone(config, fewer)
    assert_same(runs / "one", fewer)
    more = back_to(runs / "one", 2, tmp_path / "more")
    spread(more, 2, tmp_path)
    assert_same(runs / "one", more)


SCALAR = """
import os, sys
import torch
import torch.distributed as dist
from torch import nn
from nas3r.training.config import OptimConfig, ScheduleConfig
from nas3r.training.optim import Optimizer
from nas3r.training.sharding import gathered, shard

class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 3)])

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Part(), Part()
        self.sharpness, self.none = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.zeros(0, 3))
    def forward(self, x):
        return self.sharpness * self.decoder.blocks[0](self.encoder.blocks[0](x).tanh())

torch.manual_seed(0)
torch.set_num_threads(1)
network, x, rank, size = Network(), torch.randn(4, 3), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
if size > 1:
    dist.init_process_group("gloo")
    shard(network, torch.device("cpu"))
optimizer = Optimizer(network, OptimConfig(lr=1e-2, clip_norm=0.01), ScheduleConfig(warmup_steps=0))
norms = []
for step in range(3):
    optimizer.set_learning_rates(step)
    network(x[rank * 4 // size : (rank + 1) * 4 // size]).square().mean().backward()
    optimizer.step()
    norms.append(optimizer.gradient_norm.item())
state = gathered(network.state_dict())
if rank == 0:
    torch.save([state, norms], sys.argv[1])
"""


def test_single_numbers_are_not_spread_but_averaged(tmp_path):
    script = tmp_path / "scalar.py"
    script.write_text(SCALAR)
    found = []
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
        command += [
            "--rdzv-backend=c10d",
            "--rdzv-endpoint=localhost:0",
            str(script),
            str(tmp_path / "found"),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(torch.load(tmp_path / "found", weights_only=True))
    (one, one_norms), (two, two_norms) = found
    assert one["sharpness"] != 2.0
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5)  # three steps of 1e-2
    assert two_norms == pytest.approx(one_norms, rel=1e-5)


@pytest.mark.slow
def test_a_run_of_two_goes_on_in_four(runs, tmp_path):
    four = back_to(runs / "two", 2, tmp_path / "four")
    spread(four, 4, tmp_path)
    assert_same(runs / "one", four)


def test_moments_are_those_of_one_process(runs, config):
    """Read from the slices of two processes into one optimiser, beside those that one process stored."""
    found = []
    for run in ("one", "two"):
        checkpoint = CheckpointFolder(runs / run, 9).all()[-1]  # early, where all agree to rounding
        optimizer = Optimizer(build(config.model), OPTIONS["optim"], OPTIONS["schedule"])
        if checkpoint.spread is None:
            optimizer.load_state_dict(checkpoint.training_state()["optimizer"])
        else:
            optimizer.load_spread(checkpoint.spread)
        found.append(optimizer.moments())
    one, two = found
    assert one.keys() == two.keys()
    for kind in ("exp_avg", "exp_avg_sq", "step"):
        a, b = (torch.cat([v.flatten() for k, v in m.items() if k.endswith(f".{kind}")]) for m in found)
        assert a.norm() > 0
        assert (a - b).norm() < 1e-4 * a.norm()


def test_moments_of_another_network_are_refused(runs, config, tmp_path):
    checkpoint = CheckpointFolder(runs / "two", 9).all()[0]
    assert checkpoint.spread is not None
    wide = replace(config.model, encoder=replace(config.model.encoder, width=64))
    optimizer = Optimizer(build(wide), config.optim, config.schedule)
    with pytest.raises(ValueError, match="optimizer"):
        optimizer.load_spread(checkpoint.spread)


def test_damage_to_a_slice_is_found(runs, tmp_path):
    copy = back_to(runs / "two", 4, tmp_path / "copy")
    newest = CheckpointFolder(copy, 9).all()[0]
    assert newest.spread is not None
    path = next(newest.spread.glob("__1_*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = CheckpointFolder(copy, 9).newest_valid()
    assert found is not None
    assert found.step == 2
