"""What a path names that is no file of ours: pipes, devices, folders, and files that must not be replaced."""

import os
from pathlib import Path

import numpy as np
import pytest

from nas3r import memory
from nas3r.cli.main import main
from nas3r.data.posed_sources import open_posed
from nas3r.io.images import save_image
from nas3r.io.json_files import read_json

BAD_INPUT, NO_RESOURCES = 2, 3


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe.jpg")
    return tmp_path / "pipe.jpg"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    (tmp_path / "clip").mkdir()
    random = np.random.default_rng(0)
    for i in range(30):
        save_image(tmp_path / "clip" / f"{i:02d}.png", random.integers(0, 256, (16, 16, 3), np.uint8))
    return tmp_path / "clip"


@pytest.mark.parametrize("verb", ["reconstruct", "reconstruct --dry-run"])
def test_pipes_are_not_waited_for(verb, pipe, photos, weights, capsys):
    name, *flags = verb.split()
    out = str(pipe.parent / "out")
    assert main([name, str(photos), str(pipe), "-o", out, "--weights", str(weights), *flags]) == BAD_INPUT
    assert "neither a file nor a folder" in capsys.readouterr().err
    assert not (pipe.parent / "out").exists()


def test_pipes_among_the_photos_of_a_folder_are_left_out(pipe, photos, weights, capsys):
    pipe.rename(photos / "pipe.jpg")
    assert main(["reconstruct", str(photos), "-o", "out", "--weights", str(weights), "--dry-run"]) == 0
    assert "pipe.jpg" not in capsys.readouterr().out


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/dev/random"])
def test_devices_are_no_photos(device, photos, weights, tmp_path, capsys):
    command = ["reconstruct", str(photos), device, "-o", str(tmp_path / "out"), "--weights", str(weights)]
    assert main(command) == BAD_INPUT
    assert device in capsys.readouterr().err


def test_json_from_a_pipe_or_a_device(pipe):
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(ValueError, match="expected a file, got a pipe or a device"):
            read_json(path)


@pytest.mark.parametrize("name", ["notes.txt", "report.html", "photo.jpg"])
def test_a_page_replaces_nothing_but_an_earlier_page(name, clip, tmp_path, capsys):
    out = tmp_path / name
    out.write_bytes(b"<html>mine")
    inspect = ["data", "inspect", str(clip), "-o", str(out), "--size", "16", "--clips", "1", "--samples", "1"]
    assert main(inspect) == BAD_INPUT
    assert "is no page of nas3r" in capsys.readouterr().err
    assert out.read_bytes() == b"<html>mine"
    out.unlink()
    assert main(inspect) == 0
    first = out.read_bytes()
    assert main(inspect) == 0  # its own page may be made again
    assert out.read_bytes() == first


def test_a_page_at_a_folder(clip, tmp_path, capsys):
    assert main(["data", "inspect", str(clip), "-o", str(tmp_path)]) == BAD_INPUT
    assert f"{tmp_path}: is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("data", ["clip", "synthetic"])
def test_inspecting_larger_than_memory(data, clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2**30)
    paths = [str(clip)] if data == "clip" else ["synthetic", "--recipe", "tiny-synthetic"]
    out = tmp_path / "a.html"
    assert main(["data", "inspect", *paths, "-o", str(out), "--size", "60000"]) == NO_RESOURCES
    side = int(capsys.readouterr().err.split("--size ")[1].split()[0])
    assert 100 < side < 1000
    assert not out.exists()


@pytest.mark.parametrize("count", ["99999999999999999999", "0"])
def test_numbers_of_worlds_that_make_no_sense(count):
    with pytest.raises(ValueError, match="expected"):
        open_posed(f"synthetic:1:{count}")
