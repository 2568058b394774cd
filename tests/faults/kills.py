"""Kills a piece of work before changes that it makes to the file system, and tries it again after each kill.

Run as a script, with `tests/training` on the path of modules. It prints the number of kills, and ends with 1
at the first one that does harm:

    python tests/faults/kills.py SCENARIO FOLDER
"""

import os
import shutil
import signal
import sys
import tarfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from small_runs import Sliding, make_config

from nas3r.data.shards import ShardOptions, shard_videos
from nas3r.data.synthesis import SynthesisOptions, write_clips
from nas3r.data.synthetic import SyntheticConfig
from nas3r.io.json_files import read_object
from nas3r.io.video import write_video
from nas3r.reconstruction import Reconstruction
from nas3r.reconstruction.output import FORMAT, MANIFEST
from nas3r.training.config import ScheduleConfig
from nas3r.training.loop import train

_CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "shutil.copyfile")
_MOST = 16  # kills, spread evenly over all changes


class Scenario:
    """A piece of work, done in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self, place: Path) -> None:
        """Puts into an empty folder what the work finds there."""

    def work(self, place: Path) -> None:
        """Does it; done again, it goes on where it was ended."""
        raise NotImplementedError

    def check_killed(self, place: Path) -> None:
        """What must hold right after a kill."""

    def check_done(self, place: Path, whole: Path) -> None:
        """What must hold when the work was done again: by default the same files as without a kill."""
        assert contents(place) == contents(whole)


class Overwriting(Scenario):
    """`reconstruct --overwrite`: what was there, or the new result, whole; and what is not ours."""

    def prepare(self, place: Path) -> None:
        shutil.copytree(self.folder / "result", place / "out")
        (place / "out" / "notes.txt").write_text("mine")
        (place / "out" / "edits").mkdir()
        (place / "out" / "edits" / "filtered-1.ply").write_text("mine too")

    def work(self, place: Path) -> None:
        result = Reconstruction.load(self.folder / "result")
        result.save(place / "out", exports=["splat", "points", "colmap"], overwrite=True)

    def check_killed(self, place: Path) -> None:
        out = place / "out"
        manifest = read_object(out / MANIFEST)
        assert manifest["format"] == FORMAT
        assert all((out / name).is_file() for name in manifest["files"])
        assert len(Reconstruction.load(out).views) == 2
        new = "scene.splat" in manifest["files"]
        assert (out / "scene.splat").exists() == new
        assert (out / "notes.txt").read_text() == "mine"
        assert (out / "edits" / "filtered-1.ply").read_text() == "mine too"

    def check_done(self, place: Path, whole: Path) -> None:
        self.check_killed(place)
        assert contents(place).keys() == contents(whole).keys()  # times differ


class Sharding(Scenario):
    """`data shard`: the index names whole shards only."""

    def prepare(self, place: Path) -> None:
        if (self.folder / "videos").exists():
            return
        for seed in (1, 2):
            rng = np.random.default_rng(seed)
            picture = np.kron(rng.integers(0, 255, (12, 60, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            frames = [picture[:, 6 * i : 6 * i + 128] for i in range(30)]
            write_video(self.folder / "videos" / f"{seed}.mp4", frames, 25)

    def work(self, place: Path) -> None:
        options = ShardOptions(short_side=64, min_frames=8, max_frames=12)
        shard_videos([self.folder / "videos"], place / "out", options)

    def check_killed(self, place: Path) -> None:
        if not (place / "out" / "index.json").exists():
            return
        for shard in read_object(place / "out" / "index.json")["shards"]:
            with tarfile.open(place / "out" / shard["name"]) as tar:
                names = tar.getnames()
            frames = sum(clip["frames"] for clip in shard["clips"])
            assert len(names) == frames + len(shard["clips"])

    def check_done(self, place: Path, whole: Path) -> None:
        found, expected = contents(place), contents(whole)
        assert found.keys() == expected.keys()
        for name in expected.keys() - {"out/report.json"}:  # it says how many were done before
            assert found[name] == expected[name], name


class _Synthesising(Scenario):
    layout = "folders"

    def work(self, place: Path) -> None:
        options = SynthesisOptions(
            seed=3,
            clips=2,
            height=16,
            width=16,
            layout=self.layout,  # pyright: ignore[reportArgumentType]
            config=SyntheticConfig(frames=3),
        )
        write_clips(place / "out", options)

    def check_killed(self, place: Path) -> None:
        for cameras in (place / "out").glob("cameras/*/transforms.json"):
            frames = read_object(cameras)["frames"]
            assert len(frames) == 3
            if self.layout == "folders":
                assert all((cameras.parent / frame["file_path"]).is_file() for frame in frames)


class SynthesisingShards(_Synthesising):
    """`data synthesise --layout shards`."""

    layout = "shards"


class SynthesisingFolders(_Synthesising):
    """`data synthesise`: cameras appear after their images."""


class Training(Scenario):
    """`train` with a checkpoint at every other step: the same weights to the last bit."""

    def work(self, place: Path) -> None:
        config = make_config(schedule=ScheduleConfig(steps=6, warmup_steps=2))
        runtime = {**vars(config.runtime), "checkpoint_every": 2, "log_every": 2}
        config = make_config(schedule=config.schedule, runtime=type(config.runtime)(**runtime))
        step = config.objective.make_step(config.model, config.step, torch.device("cpu"))
        train(config, place / "run", Sliding(), step, resume=True)

    def check_done(self, place: Path, whole: Path) -> None:
        found, expected = contents(place), contents(whole)
        weights = [name for name in expected if name.endswith(".safetensors")]
        assert weights
        for name in weights:  # the order of a header's entries is not fixed, so files may differ
            first, second = load_file(place / name), load_file(whole / name)
            assert first.keys() == second.keys()
            assert all(torch.equal(value, second[key]) for key, value in first.items()), name
        checkpoints = {n for n in expected if "/step_" in n}
        assert {n for n in found if "/step_" in n or n.split("/")[-1].startswith(".")} == checkpoints


SCENARIOS: dict[str, type[Scenario]] = {
    kind.__name__: kind for kind in (Overwriting, Sharding, SynthesisingFolders, SynthesisingShards, Training)
}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones included."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def on_change(folder: Path, call: Callable[[int], None]) -> None:
    """From now on calls this with a count right before this process changes files in a folder."""
    seen = [0]
    root = os.fspath(folder)

    def hook(event: str, arguments: tuple) -> None:
        writes = event == "open" and len(arguments) > 2 and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if not writes and event not in _CHANGES:
            return
        if any(isinstance(a, str | os.PathLike) and os.fspath(a).startswith(root) for a in arguments):
            seen[0] += 1
            call(seen[0])

    sys.addaudithook(hook)


def in_child(run: Callable[[], None]) -> int:
    """What a process that runs this ends with; negative for a signal."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            run()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def uninterrupted(scenario: Scenario, place: Path) -> int:
    """Does all of it; returns how many changes it makes."""
    place.mkdir()
    told, telling = os.pipe()

    def run() -> None:
        count = [0]
        scenario.prepare(place)
        on_change(place, lambda number: count.__setitem__(0, number))
        scenario.work(place)
        os.write(telling, str(count[0]).encode())

    if in_child(run):
        raise SystemExit("the work fails without being killed")
    return int(os.read(told, 100))


def is_harmless(scenario: Scenario, place: Path, whole: Path, change: int) -> bool:
    """Kills it right before a change, looks at what is there, and does it again."""
    place.mkdir()

    def die(number: int) -> None:
        if number == change:
            os.kill(os.getpid(), signal.SIGKILL)

    def killed() -> None:
        scenario.prepare(place)
        on_change(place, die)
        scenario.work(place)

    def again() -> None:
        scenario.check_killed(place)
        scenario.work(place)
        scenario.check_done(place, whole)

    return in_child(killed) == -signal.SIGKILL and in_child(again) == 0


def main() -> int:
    torch.set_num_threads(1)
    name, root = sys.argv[1], Path(sys.argv[2])
    scenario, whole = SCENARIOS[name](root), root / "whole"
    changes = uninterrupted(scenario, whole)
    tried = sorted({round(number) for number in np.linspace(1, changes, _MOST)})
    for change in tried:
        if not is_harmless(scenario, root / f"killed-{change}", whole, change):
            print(f"{name}: harm by a kill before change {change} of {changes}")
            return 1
        shutil.rmtree(root / f"killed-{change}")
    print(f"{name}: {len(tried)} kills")
    return 0


if __name__ == "__main__":
    sys.exit(main())
