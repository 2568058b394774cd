import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import nas3r
from nas3r.models import NAS3R
from nas3r.training.config import OptimConfig, RuntimeConfig, ScheduleConfig
from nas3r.training.log import read_log
from nas3r.training.loop import train
from nas3r.training.state import CheckpointFolder

CPU = torch.device("cpu")


def _train(config, run, loader, **options):
    step = config.objective.make_step(config.model, config.step, CPU)
    return train(config, run, loader, step, **options)


def _assert_same_weights(a: Path, b: Path) -> None:
    first, second = load_file(a), load_file(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_the_loss_falls_and_everything_is_written(config, run, loader):
    config = replace(
        config,
        schedule=ScheduleConfig(steps=40, warmup_steps=2),
        runtime=replace(config.runtime, panel_every=20, tensorboard=True),
    )
    outcome = _train(config, run, loader)
    lines = [line for line in read_log(run) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == list(range(5, 41, 5))
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert {"psnr", "gradient_norm", "skipped", "lr", "steps_per_s", "seconds"} <= lines[0].keys()
    assert outcome.step == 40
    assert not outcome.interrupted
    assert isinstance(nas3r.load(outcome.weights), NAS3R)
    assert Image.open(run / "panels" / "step_000000040.png").width > 500
    assert list((run / "tensorboard").glob("events*"))
    assert json.loads((run / "config.json").read_text())["optim"]["lr"] == 2e-3
    kept = CheckpointFolder(run, 2).all()
    assert [c.step for c in kept] == [40, 35]
    assert isinstance(nas3r.load(kept[0].weights), NAS3R)


def test_resuming_continues_bit_for_bit(config, run, loader, tmp_path):
    config = replace(config, optim=OptimConfig(lr=2e-3, ema=0.9))
    _train(config, run, loader)
    stopped = tmp_path / "stopped"
    _train(replace(config, schedule=replace(config.schedule, steps=20)), stopped, _StopAt(loader, 12))
    assert CheckpointFolder(stopped, 2).newest_step() == 12
    outcome = _train(config, stopped, loader, resume=True)
    _assert_same_weights(run / "model.safetensors", outcome.weights)
    a = CheckpointFolder(run, 2).all()[0]
    b = CheckpointFolder(stopped, 2).all()[0]
    _assert_same_weights(a.weights, b.weights)
    logged = [[line["loss"] for line in read_log(r) if line["kind"] == "train"] for r in (run, stopped)]
    assert logged[0][-1] == logged[1][-1]


class _StopAt:
    """A loader that sends this process a signal while it prepares a step, as a user's Ctrl-C would."""

    def __init__(self, loader, step: int, number: int = signal.SIGTERM) -> None:
        self._loader, self._step, self._number = loader, step, number

    def batch(self, step: int):
        if step == self._step - 1:
            os.kill(os.getpid(), self._number)
        return self._loader.batch(step)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_ends_the_run(config, run, loader, number):
    before = signal.getsignal(signal.SIGINT)
    outcome = _train(config, run, _StopAt(loader, 7, number))
    assert outcome.interrupted
    assert outcome.step == 7
    assert CheckpointFolder(run, 2).newest_step() == 7
    assert signal.getsignal(signal.SIGINT) is before


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
train(config, Path({run!r}), Sliding(), step, resume=True)
"""


def test_killed_at_any_moment_equals_uninterrupted(config, run, loader, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    _train(config, run, loader)
    torch.set_num_threads(threads)
    killed = tmp_path / "killed"
    script = SCRIPT.format(tests=str(Path(__file__).parent), run=str(killed), options="")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    delay = int.from_bytes(os.urandom(2), "big") / 65536  # any moment: the result must not depend on it
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    while not (killed / "checkpoints" / "step_000000005").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    process.wait()
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    _assert_same_weights(run / "model.safetensors", killed / "model.safetensors")
    steps = [line["step"] for line in read_log(killed) if line["kind"] == "train"]
    assert steps == [5, 10, 15, 20]


def test_two_processes_learn_what_one_does_on_the_same_global_batch(config, run, loader, tmp_path):
    # Few and small steps: the first depths are all the same up to rounding, so that rounding soon decides
    # which of two Gaussians is drawn in front.
    options = {
        "optim": OptimConfig(lr=1e-5),
        "schedule": ScheduleConfig(steps=4, warmup_steps=2),
        "runtime": RuntimeConfig(log_every=1, panel_every=0),
    }
    config = replace(config, **options)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    _train(config, run, loader)
    torch.set_num_threads(threads)
    together = tmp_path / "together"
    text = SCRIPT.format(
        tests=str(Path(__file__).parent),
        run=str(together),
        options=", ".join(f"{name}={value!r}" for name, value in options.items()),
    )
    script = tmp_path / "rank.py"
    script.write_text(text.replace("Sliding()", "Sliding(4, int(os.environ['RANK']), 2)"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", str(script)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [(a, b) for a, b in zip(read_log(run), read_log(together)) if a["kind"] == "train"]
    assert len(lines) == 4
    for a, b in lines:
        # Sums over halves of a batch round differently in float32, and updates carry that along.
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-3)


def test_a_run_is_not_overwritten_nor_mixed(config, run, loader):
    _train(config, run, loader)
    with pytest.raises(ValueError, match="--resume"):
        _train(config, run, loader)
    other = replace(config, optim=replace(config.optim, lr=1e-3))
    with pytest.raises(ValueError, match=r"optim\.lr was 0\.002, now 0\.001"):
        _train(other, run, loader, resume=True)


def test_a_finished_run_can_be_prolonged(config, run, loader):
    _train(config, run, loader)
    longer = replace(config, schedule=replace(config.schedule, steps=25))
    assert _train(longer, run, loader, resume=True).step == 25


def test_a_time_budget_ends_the_run_and_drives_the_schedule(config, run, loader):
    budget = replace(
        config,
        schedule=ScheduleConfig(steps=10**9, minutes=0.05, warmup_steps=1),
        runtime=replace(config.runtime, log_every=1),
    )
    started = time.monotonic()
    outcome = _train(budget, run, loader)
    assert 0 < outcome.step < 10**6
    assert time.monotonic() - started > 3
    last = [line for line in read_log(run) if line["kind"] == "train"][-1]
    assert last["lr"] < 0.1 * 2e-3


def test_validation_is_logged_and_returned(config, run, loader):
    seen = []

    def validator(model: NAS3R) -> dict[str, float]:
        model.eval()
        seen.append(model)
        return {"psnr": 20.0}

    every = replace(config, runtime=RuntimeConfig(log_every=5, panel_every=0, validate_every=10))
    outcome = _train(every, run, loader, validator=validator)
    assert len(seen) == 2  # at step 10, and at step 20, which is also the end
    assert outcome.validation == {"psnr": 20.0}
    assert [line["psnr"] for line in read_log(run) if line["kind"] == "validation"] == [20.0, 20.0]


def test_bad_batches_are_skipped_and_the_run_goes_on(config, run, loader):
    class Broken:
        def batch(self, step: int):
            batch = loader.batch(step)
            return replace(batch, target=batch.target * float("nan")) if step == 3 else batch

    _train(config, run, Broken())
    lines = [line for line in read_log(run) if line["kind"] == "train"]
    assert lines[-1]["skipped"] == 1
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in lines)
    assert all(v.isfinite().all() for v in load_file(run / "model.safetensors").values())
