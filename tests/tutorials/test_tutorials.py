"""Tutorials work as they are written: their commands and code are run, in order, on miniature inputs."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas3r.cli.main import main
from nas3r.io.video import write_video
from two_layer_world import World

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
FAST = ("add-a-data-set.md", "read-the-output.md")
PAGES = [
    pytest.param(path.name, marks=() if path.name in FAST else pytest.mark.slow)
    for path in sorted(TUTORIALS.glob("*.md"))
    if path.name != "README.md"
]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)

# Appended to the commands: the same work, shorter.
SHORTER = {
    "reconstruct": ["--views", "4"],
    "train": ["--steps", "2", "--size", "32", "--batch-size", "2", "--no-validate"],
}


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the tutorials say that their reader has."""
    world = World()
    (tmp_path / "photos").mkdir()
    for i in range(5):
        Image.fromarray(world.frame(6 * i)).save(tmp_path / "photos" / f"IMG_{i + 1}.jpg", quality=95)
    Image.fromarray(world.frame(15)).save(tmp_path / "another.jpg", quality=95)
    (tmp_path / "clips").mkdir()
    (tmp_path / "arrays").mkdir()
    for i in range(2):
        frames = [World(seed=10 * i).frame(2 * j) for j in range(30)]
        write_video(tmp_path / "clips" / f"{i}.mp4", iter(frames), 24)
        np.save(tmp_path / "arrays" / f"{i}.npy", np.stack(frames))
        (tmp_path / "mine" / str(i)).mkdir(parents=True)
        for j, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / "mine" / str(i) / f"{j:04d}.jpg")
    monkeypatch.setattr("nas3r.reconstruction.dense.FITTING", {"standard": (3, 20.0), "best": (5, 20.0)})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_shell(text: str) -> None:
    """Runs the commands of nas3r in a block; others install packages, and are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[:2] == ["pip", "install"]:
            continue
        assert words[0] == "nas3r", f"cannot run {line!r}"
        shorter = [] if "--resume" in words else SHORTER.get(words[1], [])
        assert main([*words[1:], *shorter]) == 0, line


@pytest.mark.parametrize("name", PAGES)
def test_page_works(name: str, inputs: Path) -> None:
    blocks = BLOCK.findall((TUTORIALS / name).read_text())
    assert blocks
    names: dict[str, object] = {}
    for kind, text in blocks:
        if kind == "sh":
            run_shell(text)
        else:
            exec(compile(text, name, "exec"), names)


@pytest.mark.slow
def test_notebook_works(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    shutil.rmtree(inputs / "photos")  # it needs no data
    cells = json.loads((TUTORIALS / "first_scene.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "first_scene.ipynb", "exec"), names)


def test_all_tutorials_are_listed() -> None:
    listed = (TUTORIALS / "README.md").read_text()
    for path in TUTORIALS.iterdir():
        assert path.name == "README.md" or f"]({path.name})" in listed
