"""`nas3r data` from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from nas3r.cli.main import main
from nas3r.io.video import write_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 255, (12, 60, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    path = tmp_path / "in" / "pan.mp4"
    path.parent.mkdir()
    write_video(path, [picture[:, 6 * i : 6 * i + 128] for i in range(50)], fps=25)
    return path


def test_shard_then_inspect(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "bad.mp4").write_bytes(b"no video")
    out = tmp_path / "shards"
    shard = ["data", "shard", str(tmp_path / "in"), "-o", str(out), "--short-side", "64", "--workers", "1"]
    assert main([*shard, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["clips"] == 1
    assert "bad.mp4" in summary["videos_unreadable"]
    assert main(shard) == 0
    text = capsys.readouterr().out
    assert "1 clips of 50 frames from 1 videos" in text
    assert "1 videos were done before" in text
    page = tmp_path / "report.html"
    assert main(["data", "inspect", str(out), "-o", str(page), "--clips", "2", "--samples", "1"]) == 0
    assert "1 clips" in capsys.readouterr().out
    assert "bad.mp4" in page.read_text()


@pytest.mark.parametrize(
    ("option", "shown"),
    [(["--gap", "5", "9"], "5 to 9 frames"), (["--motion", "0.1", "0.5"], "10 to 50 % motion")],
)
def test_the_end_of_the_curriculum_can_be_given(
    option: list[str], shown: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["data", "inspect", str(video), "-o", str(tmp_path / "a.html"), "--recipe", "re10k"]
    arguments += [*option, "--size", "32", "--clips", "1", "--samples", "1", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 1
    assert shown in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["shard", "nothing.mp4", "-o", "out"], "no such file"),
        (["shard", "-o", "out"], "there are no videos"),
        (["inspect", "nothing", "-o", "a.html"], "no such file"),
        (["inspect", ".", "-o", "a.html"], "holds no videos"),
        (["inspect", ".", "-o", "a.html", "--recipe", "nothing"], "recipe"),
        (["synthesise", "-o", "out", "--clips", "0"], "--clips: expected an integer of at least 1"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
