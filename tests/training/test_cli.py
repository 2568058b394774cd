import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from safetensors.torch import load_file

from nas3r.cli.main import EXIT_BAD_INPUT, main
from nas3r.cli.train import Command
from nas3r.models import NAS3R, save
from nas3r.training import recipes
from nas3r.training.config import of_length
from nas3r.training.log import read_log
from nas3r.training.state import prepare_run

RUN = ["-o", "RUN"]


def _parse(*arguments: str) -> Command:
    return tyro.cli(Command, args=list(arguments))


def test_options_that_are_not_given_keep_the_recipe():

    assert _parse("tiny-synthetic", *RUN).config() == recipes.get("tiny-synthetic")


def test_options_reach_the_configuration():
    config = _parse(
        *["video-folder", *RUN, "--data", "a", "b", "--steps", "7", "--batch-size", "2", "--size", "32"],
        *[
            "--model",
            "tiny",
            "--views",
            "4",
            "--targets",
            "3",
            "--gap",
            "3",
            "9",
            "--lr",
            "0.1",
            "--seed",
            "5",
        ],
        *["--perceptual", "none", "--optimizer", "muon", "--workers", "0", "--tensorboard"],
    ).config()
    assert config.data.paths == ("a", "b")
    assert (config.schedule.steps, config.data.batch_size, config.seed, config.data.workers) == (7, 2, 5, 0)
    assert (config.data.height, config.data.width, config.model.image_size) == (32, 32, 32)
    assert (config.data.sampler.context_views, config.data.sampler.target_views) == (4, 3)
    assert config.data.sampler.schedule.end == (3, 9)
    assert (config.optim.lr, config.optim.optimizer) == (0.1, "muon")
    assert config.objective.loss.perceptual == "none"
    assert config.runtime.tensorboard


def test_photos_become_textures_of_worlds():
    data = _parse("tiny-synthetic", *RUN, "--photos", "here").config().data
    assert data.synthetic.photos == "here"


def test_the_curriculum_can_follow_the_motion():
    from nas3r.data.sampling import MotionSchedule

    schedule = _parse("video-folder", *RUN, "--data", "a", "--motion", "0.1", "0.5").config().data.sampler
    assert isinstance(schedule.schedule, MotionSchedule)
    assert schedule.schedule.end == (0.1, 0.5)


def test_warm_up_and_curriculum_keep_their_share_of_the_steps():

    full = recipes.get("tiny-synthetic")
    half = _parse("tiny-synthetic", *RUN, "--steps", str(full.schedule.steps // 2)).config()
    assert half.schedule.warmup_steps == round(full.schedule.warmup_steps / 2)
    assert half.data.sampler.schedule.warm_up == round(full.data.sampler.schedule.warm_up / 2)
    assert half.optim.lr == full.optim.lr
    for a, b in zip(half.optim.rules, full.optim.rules):
        assert a.frozen_until == round(b.frozen_until / 2)


def test_weights_stand_behind_the_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b:2").mkdir()
    given = ["a:3", "b:2", "c", "http://host:8080", "http://host:8080/d:0.5"]
    data = _parse("video-folder", *RUN, "--data", *given).config().data
    assert data.paths == ("a", "b:2", "c", "http://host:8080", "http://host:8080/d")
    assert [part.weight for part in data.mixture] == [3, 1, 1, 1, 0.5]
    assert _parse("video-folder", *RUN, "--data", "a", "c").config().data.mixture == ()


def test_the_mixture_of_a_recipe_can_be_weighed_anew():
    recipe = recipes.get("re10k-dl3dv").data
    assert [p.weight for p in recipe.mixture] == [3, 1]
    assert [p.schedule and p.schedule.end for p in recipe.mixture] == [None, (5, 10)]
    data = _parse("re10k-dl3dv", *RUN, "--data", "RE10K:2", "DL3DV:5").config().data
    assert [p.weight for p in data.mixture] == [2, 5]
    assert data.mixture[1].schedule == recipe.mixture[1].schedule
    assert data.part_samplers()[0] == data.sampler
    assert data.part_samplers()[1].schedule.end == (5, 10)
    gap = _parse("re10k-dl3dv", *RUN, "--data", "A", "B", "--gap", "3", "7").config().data
    assert [s.schedule.end for s in gap.part_samplers()] == [(3, 7), (3, 7)]
    half = _parse("re10k-dl3dv", *RUN, "--data", "A", "B", "--steps", "200000").config().data
    assert half.mixture[1].schedule.warm_up == pytest.approx(100_000, rel=1e-3)
    with pytest.raises(ValueError, match="mixes 2 data sets"):
        _parse("re10k-dl3dv", *RUN, "--data", "A").config()


FLAGS = {
    "canonical_points": ["--points", "canonical"],
    "without_mask": ["--no-mask"],
    "without_backdrop": ["--no-backdrop"],
    "without_curriculum": ["--no-curriculum"],
    "given_intrinsics": ["--given-intrinsics"],
    "fixed_matching": ["--no-matching"],
}


def test_each_ablation_is_one_flag():
    from nas3r.training.ablations import ABLATIONS

    assert FLAGS.keys() == ABLATIONS.keys()
    start = replace(recipes.get("tiny-synthetic"), initial="W")
    for name, flags in FLAGS.items():
        weights = ["--weights", "W"] if name == "fixed_matching" else []
        found = _parse("tiny-synthetic", *RUN, *flags, *weights).config()
        assert found == ABLATIONS[name](start if weights else replace(start, initial=None))


def test_supervision_is_one_flag():
    from nas3r.training.objectives import Supervised

    supervised = _parse("tiny-synthetic", *RUN, "--supervised").config()
    assert supervised.objective == Supervised()
    assert supervised.objective.needs_labels(supervised.model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["huge"], "tiny-synthetic: "),
        (["video-folder"], "--data"),
        (["tiny-synthetic", "--data", "x"], "makes its own worlds"),
        (["tiny-synthetic", "--size", "30"], "patch size 8"),
        (["tiny-synthetic", "--gap", "1", "100000"], "fewer than the 24 frames"),
        (["tiny-synthetic", "--photos", "/nowhere"], "/nowhere: expected photos"),
        (["video-folder", "--data", ".", "--photos", "x"], "makes no worlds"),
        (["tiny-synthetic", "--motion", "0.1", "0.5"], "footage without labels"),
        (["video-folder", "--data", ".", "--gap", "1", "2", "--motion", "0.1", "0.5"], "not both"),
        (["video-folder", "--data", "/nowhere"], "/nowhere"),
        (["tiny-synthetic", "--steps", "0"], "steps"),
        (["tiny-synthetic", "--device", "cuda"], "CUDA"),
        (["tiny-synthetic", "--weights", "x", "--no-mask"], "brings its own network"),
        (["tiny-synthetic", "--no-matching"], "in weights that have learnt it"),
        (["tiny-matching", "--weights", "x", "--no-matching"], "learns nothing but matching"),
        (["tiny-matching", "--supervised"], "learns nothing but matching"),
        (["tiny-matching", "--gamma", "1"], "--gamma: expected a run that learns from pixels"),
        (
            ["tiny-synthetic", "--supervised", "--perceptual", "ssim"],
            "--perceptual: expected a run",
        ),
        (["re10k-from-vggt", "--data", "."], "VGGT-1B weights: --weights"),
        (["tiny-synthetic", "--perceptual", "lpips"], "--lpips-weights"),
        (["tiny-synthetic", "--weights", "/nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NAS3R_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["train", *arguments, "-o", str(tmp_path / "run")]) == EXIT_BAD_INPUT
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("nas3r: ")
    assert message in error
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """Two sequences of frames and a folder with a single one."""
    rng = np.random.default_rng(0)
    for name, count in (("garden", 12), ("hall", 12), ("single", 1)):
        folder = tmp_path / "footage" / name
        folder.mkdir(parents=True)
        wide = Image.fromarray(rng.integers(0, 255, (10, 20, 3), dtype=np.uint8)).resize((120, 60))
        for i in range(count):
            wide.crop((2 * i, 0, 2 * i + 80, 60)).save(folder / f"{i:04d}.png")
    return tmp_path / "footage"


def test_trains_on_a_folder_and_resumes(footage, tmp_path):
    train = [sys.executable, "-m", "nas3r.cli.main", "train"]
    command = [*train, "video-folder", "--data", "footage"]
    command += ["-o", "run", "--model", "tiny", "--size", "16", "--batch-size", "2", "--views", "2"]
    command += ["--gap", "2", "6", "--perceptual", "none", "--no-validate", "--threads", "1"]
    command += ["--workers", "1", "--steps", "2"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert "2 clips; 1 left out" in first.stderr
    assert "left out single" in first.stderr
    assert "finished at step 2" in first.stdout
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == EXIT_BAD_INPUT
    assert "continue it with --resume run" in again.stderr
    # From another folder: the run's own is all that is needed.
    resume = [*train, "--resume", str(tmp_path / "run"), "--steps", "3"]
    resumed = subprocess.run(resume, cwd=tmp_path / "footage", capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"resuming at step 2 .* M parameters on cpu, batch 2, loss MSE", resumed.stderr)
    assert "finished at step 3" in resumed.stdout
    assert "\r" not in resumed.stderr  # no live line without a terminal
    assert not [line for line in read_log(tmp_path / "run") if line["kind"] == "validation"]


def test_resuming_needs_the_folder_alone(tmp_path, capsys):
    """Not the weights that the run started from, nor any option; the result is the uninterrupted one."""
    weights = tmp_path / "start.safetensors"
    save(NAS3R(recipes.get("tiny-synthetic").model), weights)
    command = ["train", "tiny-synthetic", "--weights", str(weights), "--no-matching", "--no-validate"]
    command += ["--size", "16", "--batch-size", "1", "--steps", "4", "--threads", "1", "--lr", "1e-3"]
    assert main([*command, "-o", str(tmp_path / "whole")]) == 0
    parts = tmp_path / "in parts"
    stop = [
        "import os, signal",
        "from nas3r.cli.main import main",
        "from nas3r.training.trainer import Trainer",
    ]
    stop += ["take = Trainer.take_step", "def stopping(self, progress):"]
    stop += ["    if self.step == 1: os.kill(os.getpid(), signal.SIGTERM)", "    return take(self, progress)"]
    stop += ["Trainer.take_step = stopping", f"raise SystemExit(main({[*command, '-o', str(parts)]!r}))"]
    stopped = subprocess.run([sys.executable, "-c", "\n".join(stop)], capture_output=True, text=True)
    assert stopped.returncode == 130, stopped.stderr
    assert f"continue with: nas3r train --resume '{parts}'" in stopped.stdout
    weights.unlink()
    capsys.readouterr()
    assert main(["train", "--resume", str(parts)]) == 0
    assert "finished at step 4" in capsys.readouterr().out
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    found = load_file(parts / "model.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_resumed_run_is_described_by_its_folder(tmp_path, capsys):
    run = tmp_path / "run"
    prepare_run(run, recipes.get("tiny-synthetic"), resume=False)
    stored = _parse("--resume", str(run), "--steps", "3000", "--workers", "2", "--no-validate")._resumed()
    assert stored == replace(
        of_length(recipes.get("tiny-synthetic"), 3000),
        data=replace(of_length(recipes.get("tiny-synthetic"), 3000).data, workers=2),
        runtime=replace(recipes.get("tiny-synthetic").runtime, validate_every=0),
    )
    contradictions = {
        "the recipe, -o, --learning-rate": ["tiny-synthetic", "-o", "x", "--lr", "1"],
        "--seed, --no-mask": ["--seed", "3", "--no-mask"],
    }
    for flags, arguments in contradictions.items():
        assert main(["train", "--resume", str(run), *arguments]) == EXIT_BAD_INPUT
        assert f"the run is described there, leave out {flags}" in capsys.readouterr().err
    for arguments, message in (
        (["--resume", str(tmp_path)], "holds no run"),
        (["-o", "x"], "expected a recipe"),
    ):
        assert main(["train", *arguments]) == EXIT_BAD_INPUT
        assert message in capsys.readouterr().err
    assert main(["train", "tiny-synthetic"]) == EXIT_BAD_INPUT
    assert "-o: expected a folder" in capsys.readouterr().err
