"""Stages that an interrupted run has finished are not made again."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas3r.cli.main import main
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.reconstruction.finished import FinishedStages
from nas3r.reconstruction.output import stages_folder


def made() -> Tensor:
    return torch.arange(3.0)


def never() -> Tensor:
    raise AssertionError("is made again")


def begun(folder: Path | None, *made_from: object) -> FinishedStages:
    stages = FinishedStages(folder)
    stages.begin(*made_from)
    return stages


def test_a_finished_stage_is_read(tmp_path: Path) -> None:
    pixels = [np.zeros((2, 2, 3), np.uint8)]
    assert begun(tmp_path, pixels, 1.5).of("depth", Tensor, made).tolist() == [0, 1, 2]
    assert begun(tmp_path, pixels, 1.5).of("depth", Tensor, never).tolist() == [0, 1, 2]


@pytest.mark.parametrize("other", [np.ones((2, 2, 3), np.uint8), np.zeros((3, 2, 2), np.uint8), "x", 1.5])
def test_what_it_was_made_from_counts(other: object, tmp_path: Path) -> None:
    begun(tmp_path, [np.zeros((2, 2, 3), np.uint8)]).of("depth", Tensor, made)
    with pytest.raises(AssertionError, match="made again"):
        begun(tmp_path, [other]).of("depth", Tensor, never)


def test_a_damaged_one_is_made_again_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun(tmp_path, 1).of("depth", Tensor, made)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-40])
    assert begun(tmp_path, 1).of("depth", Tensor, made).tolist() == [0, 1, 2]
    assert "is made again" in caplog.text


def test_nothing_is_kept_without_a_folder_or_before_it_is_said_what_from(tmp_path: Path) -> None:
    begun(None, 1).of("depth", Tensor, made)
    FinishedStages(tmp_path / "stages").of("depth", Tensor, made)
    assert not list(tmp_path.iterdir())


def test_stages_stay_only_if_the_run_is_stopped(tmp_path: Path) -> None:
    stages = begun(tmp_path / "stages", 1)

    def stopped(error: type[BaseException]) -> None:
        with stages.kept_if_stopped():
            stages.of("depth", Tensor, made)
            raise error

    for error, stays in ((KeyboardInterrupt, True), (ValueError, False)):
        with pytest.raises(error):
            stopped(error)
        assert (tmp_path / "stages").exists() == stays
    with stages.kept_if_stopped():
        stages.of("depth", Tensor, made)
    assert not (tmp_path / "stages").exists()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    world = SyntheticScenes(
        3, SyntheticConfig(frames=24, rotation=(5.0, 25.0), baseline=(0.6, 1.0)), length=4
    )[1]
    images = world.read(tuple(range(0, 24, 2)), 192, 256).images
    for i, image in enumerate(images):
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(folder / f"{i:02d}.png")
    return folder


@pytest.mark.slow
def test_a_killed_run_is_gone_on_with(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SIGKILL once cameras are there; the next run finds them, and leaves nothing behind."""
    out, stages = tmp_path / "out", stages_folder(tmp_path / "out")
    options = ["reconstruct", str(photos), "-o", str(out), "--refine-steps", "2", "--export", "colmap"]
    command = [sys.executable, "-m", "nas3r.cli.main", *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(stages.glob("placed-*.npz")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(stages.glob("compared-*.npz"))
    caplog.set_level("INFO")
    assert main(options) == 0
    assert "placed: an earlier run had finished it" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
