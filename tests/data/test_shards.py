"""Videos to shards: what is cut, what is left out, and what survives an interruption."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas3r.data.parallel import run_all
from nas3r.data.parts import Part
from nas3r.data.shards import ShardOptions, shard_videos
from nas3r.data.shards.records import read_record
from nas3r.data.sources import open_source
from nas3r.io.video import write_video

pytest.importorskip("av")

OPTIONS = ShardOptions(short_side=64, min_frames=8, max_frames=20)


def panorama(seed: int) -> np.ndarray:
    """A random picture 1200 pixels wide, 96 high, with detail at two scales."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray((rng.random((n, 12 * n, 3)) * 255).astype(np.uint8)).resize((1200, 96), 3)
        for n in (4, 9)
    ]
    return np.asarray(Image.blend(*layers, 0.3))


def pan(seed: int, frames: int, speed: int = 6) -> list[np.ndarray]:
    """A camera that pans over a picture by some pixels of 128 per frame."""
    picture = panorama(seed)
    return [picture[:, speed * i : speed * i + 128] for i in range(frames)]


@pytest.fixture
def video(tmp_path: Path) -> Callable[[str, list[np.ndarray]], Path]:
    def write(name: str, frames: list[np.ndarray]) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, frames, fps=25)
        return path

    return write


def snapshot(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_video_is_cut_into_clips(video: Callable[..., Path], tmp_path: Path) -> None:
    black = [np.zeros((96, 128, 3), np.uint8)] * 6
    walk = video("My walk! (1).mp4", pan(1, 12) + pan(2, 30) + black + pan(3, 5) + [pan(4, 1)[0]] * 15)
    out = tmp_path / "out"
    report = shard_videos([walk], out, OPTIONS)
    source = open_source(out)
    assert [len(source[i]) for i in range(len(source))] == [12, 20, 10]
    assert report.rejected_clips == {"too short": 1, "static": 1}
    assert report.frames["kept"] == 42
    assert report.frames["blank"] == 6
    assert report.frames["too short"] == 5
    assert report.frames["duplicate"] == 14
    clip = source[1]
    assert clip.read([0, 19]).shape == (2, 3, 64, 85)
    # a pan by 6 of 128 pixels a frame, 19 times; the affine alignment of thumbnails is good to a percent
    assert clip.travel[-1] == pytest.approx(19 * 6 / 128, rel=0.03)  # type: ignore[attr-defined]
    description = clip.description  # type: ignore[attr-defined]
    assert description["video"] == "My walk! (1).mp4"
    assert description["frames"] == list(range(12, 32))
    assert not {"camera", "cameras", "pose", "poses", "intrinsics"} & set(description)


def test_shards_open_in_webdataset_order(video: Callable[..., Path], tmp_path: Path) -> None:
    video("a.mp4", pan(1, 12))
    shard_videos([tmp_path / "in"], tmp_path / "out", OPTIONS)
    (shard,) = (tmp_path / "out").glob("*.tar")
    with tarfile.open(shard) as tar:
        names = [member.name for member in tar]
    keys = {name.split(".")[0] for name in names}
    assert len(keys) == 1
    assert [name.split(".", 1)[1] for name in names] == [*(f"{i:06d}.jpg" for i in range(12)), "json"]


def test_duplicates_and_thinning(video: Callable[..., Path], tmp_path: Path) -> None:
    doubled = [frame for frame in pan(1, 20) for _ in range(2)]
    path = video("a.mp4", doubled)
    report = shard_videos([path], tmp_path / "out", OPTIONS)
    assert report.frames == {"kept": 20, "duplicate": 20}
    slower = ShardOptions(short_side=64, min_frames=8, max_frames=20, fps=12.5)
    report = shard_videos([path], tmp_path / "out2", slower)
    assert report.frames == {"kept": 20, "thinned out": 20}


def test_work_done_is_not_done_again(video: Callable[..., Path], tmp_path: Path) -> None:
    video("a.mp4", pan(1, 12))
    video("b.mp4", pan(2, 12))
    out = tmp_path / "out"
    assert shard_videos([tmp_path / "in"], out, OPTIONS).skipped == 0
    before = snapshot(out)
    report = shard_videos([tmp_path / "in"], out, OPTIONS)
    assert report.skipped == 2
    assert report.summary()["clips"] == 2
    after = snapshot(out)
    assert {n: t for n, t in after.items() if n.endswith(".tar")} == {
        n: t for n, t in before.items() if n.endswith(".tar")
    }
    next(out.glob("a-*.tar")).unlink()
    assert shard_videos([tmp_path / "in"], out, OPTIONS).skipped == 1
    assert len(open_source(out)) == 2


def test_other_options_replace_earlier_shards(video: Callable[..., Path], tmp_path: Path) -> None:
    path = video("a.mp4", pan(1, 40) + pan(2, 20))
    out = tmp_path / "out"
    shard_videos([path], out, OPTIONS)
    longer = ShardOptions(short_side=64, min_frames=30, max_frames=60)
    report = shard_videos([path], out, longer)
    assert report.skipped == 0
    assert [len(open_source(out)[0])] == [40]
    listed = {shard["name"] for shard in json.loads((out / "index.json").read_text())["shards"]}
    assert listed == {p.name for p in out.glob("*.tar")}


def test_shards_have_a_limited_size(video: Callable[..., Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("nas3r.data.shards.writer.MEGABYTE", 1000)
    options = ShardOptions(short_side=64, min_frames=8, max_frames=10, shard_megabytes=20)
    shard_videos([video("a.mp4", pan(1, 40))], tmp_path / "out", options)
    source = open_source(tmp_path / "out")
    assert len(source) == 4
    shards = sorted((tmp_path / "out").glob("*.tar"))
    sizes = [shard.stat().st_size for shard in shards]
    clips = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            clips.append(len({member.name.split(".")[0] for member in tar}))
    assert sum(clips) == 4
    # A shard is closed by the first clip that fills it.
    largest_clip = max(size / count for size, count in zip(sizes, clips))
    assert all(size <= 20_000 + 2 * largest_clip for size in sizes)
    assert all(size > 20_000 for size in sizes[:-1])


def test_bad_videos_are_reported_and_do_not_stop_the_others(
    video: Callable[..., Path], tmp_path: Path
) -> None:
    good = video("good.mp4", pan(1, 12))
    (tmp_path / "in" / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "in" / "same.mp4").write_bytes(good.read_bytes())
    report = shard_videos([tmp_path / "in"], tmp_path / "out", OPTIONS)
    errors = report.summary()["videos_unreadable"]
    assert set(errors) == {"bad.mp4", "same.mp4"}
    assert "bad.mp4" in errors["bad.mp4"]
    assert errors["same.mp4"] == "the same file as good.mp4"
    assert json.loads((tmp_path / "out" / "report.json").read_text())["clips"] == 1


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no videos"):
        shard_videos([tmp_path], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no such"):
        shard_videos([tmp_path / "nothing"], tmp_path / "out")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="expected a video"):
        shard_videos([tmp_path / "a.txt"], tmp_path / "out")
    for wrong in ({"min_frames": 2}, {"quality": 0}, {"fps": 0.0}):
        with pytest.raises(ValueError, match="expected"):
            ShardOptions(**wrong)


def test_nothing_is_written_elsewhere(video: Callable[..., Path], tmp_path: Path) -> None:
    video("日本.mp4", pan(1, 12))
    video("sub folder/x y;rm -rf.mp4", pan(2, 12))
    before = snapshot(tmp_path / "in")
    shard_videos([tmp_path / "in"], tmp_path / "out", OPTIONS)
    assert snapshot(tmp_path / "in") == before
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out"}
    assert len(open_source(tmp_path / "out")) == 2


def test_damaged_records_are_done_again(video: Callable[..., Path], tmp_path: Path) -> None:
    path = video("a.mp4", pan(1, 12))
    shard_videos([path], tmp_path / "out", OPTIONS)
    (record,) = (tmp_path / "out" / "records").iterdir()
    record.write_text('{"video": ')
    assert read_record(record) is None
    assert shard_videos([path], tmp_path / "out", OPTIONS).skipped == 0
    assert read_record(record) is not None


@pytest.mark.slow  # starts processes that import torch
def test_processes_give_the_same_result(video: Callable[..., Path], tmp_path: Path) -> None:
    for i in range(3):
        video(f"{i}.mp4", pan(i, 12))
    shard_videos([tmp_path / "in"], tmp_path / "one", OPTIONS, workers=1)
    shard_videos([tmp_path / "in"], tmp_path / "two", OPTIONS, workers=2)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


SCRIPT = """
import sys
from pathlib import Path
from nas3r.data.shards import ShardOptions, shard_videos
if __name__ == "__main__":
    shard_videos([Path(sys.argv[1])], Path(sys.argv[2]), ShardOptions(64, None, 8, 20), workers=2,
                 progress=lambda record: print("done", flush=True))
"""


@pytest.mark.slow
def test_parts_share_the_videos_and_the_folder(video: Callable[..., Path], tmp_path: Path) -> None:
    videos = [video(f"{i}.mp4", pan(20 + i, 10)) for i in range(5)]
    video("again/0.mp4", pan(20, 10))  # the same video under another name goes to the same part
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    shard_videos([videos[0].parent], whole, OPTIONS)
    reports = [shard_videos([videos[0].parent], parts, OPTIONS, part=Part(i, 3)) for i in (1, 2, 3)]
    assert sorted(p.name for p in parts.glob("*.tar")) == sorted(p.name for p in whole.glob("*.tar"))
    assert sum("the same file" in r.error for report in reports for r in report.records) == 1
    assert reports[2].skipped == 0  # no part did another's work
    a, b = open_source(parts), open_source(whole)
    assert sorted(a[i].name for i in range(len(a))) == sorted(b[i].name for i in range(len(b)))


def test_interrupted_work_leaves_whole_files_and_goes_on(video: Callable[..., Path], tmp_path: Path) -> None:
    for i in range(6):
        video(f"{i}.mp4", pan(i, 150))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = [sys.executable, str(script), str(tmp_path / "in"), str(tmp_path / "out")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=60)
    assert process.returncode != 0
    tars = list((tmp_path / "out").glob("*.tar"))
    assert all(not path.name.startswith(".") for path in tars)
    assert 0 < len(open_source(tmp_path / "out")) < 48
    report = shard_videos([tmp_path / "in"], tmp_path / "out", ShardOptions(64, None, 8, 20))
    assert report.skipped >= 1
    assert len(open_source(tmp_path / "out")) == 48


def test_run_all_in_one_process() -> None:
    assert list(run_all(pow, [(2, 3), (3, 2)], workers=1)) == [8, 9]
