"""`nas3r reconstruct`, `render` and `demo` as a user meets them: good input and a table of bad input."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas3r.cli.main import main
from nas3r.io.video import video_info, write_video

BAD_INPUT, NO_RESOURCES, INTERRUPTED = 2, 3, 130


@pytest.fixture
def run(tmp_path, weights, capfd):
    """Runs the command line in this process; returns exit code, standard output and standard error."""

    def call(*arguments, out="out"):
        words = [str(argument) for argument in arguments]
        if words[0] == "reconstruct":
            words += ["--weights", str(weights)] if "--weights" not in words else []
            words += ["-o", str(tmp_path / out)]
        code = main(words)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


def sentence(err):
    """The one line that a failing command prints."""
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("nas3r: ")
    assert "Traceback" not in err
    return lines[0]


def remains(tmp_path):
    """What lies in the folder that results were written to, temporary folders included."""
    return sorted(path.name for path in tmp_path.iterdir() if "out" in path.name)


def test_folder_to_result(run, photos, tmp_path):
    code, out, err = run("reconstruct", photos, "--export", "colmap", "report")
    assert code == 0
    assert out == ""
    assert re.search(r"4 views and [1-9]\d+ Gaussians", err)
    assert "report.html" in err
    assert remains(tmp_path) == ["out"]
    assert (tmp_path / "out" / "sparse" / "0" / "images.txt").is_file()
    assert not (tmp_path / "out" / "flythrough.mp4").exists()


def test_json(run, photos):
    code, out, _ = run("reconstruct", photos, "--json", "--export", "points")
    document = json.loads(out)
    assert code == 0
    assert document["views"] == [f"photo_{i}.jpg" for i in range(1, 5)]
    assert len(document["focal_px"]) == 4
    assert document["seconds"]["total"] > 0


def test_dry_run_writes_nothing(run, photos, tmp_path):
    code, out, _ = run("reconstruct", photos, "--dry-run", "--views", "3")
    assert code == 0
    assert remains(tmp_path) == []
    assert "working size 72 x 56" in out
    assert "Gaussians    12,525" in out
    code, out, _ = run("reconstruct", photos, "--dry-run", "--json")
    assert json.loads(out)["gaussians"] == 16700
    code, out, _ = run("reconstruct", photos, "--dry-run", "--json", "--surface-only")
    assert json.loads(out)["gaussians"] == 16128


def test_some_bad_files_are_named_and_skipped(run, photos, tmp_path):
    (photos / "photo_7.jpg").write_bytes(b"")
    (photos / "notes.jpg").write_text("hello")
    code, _, err = run("reconstruct", photos, "--export", "points")
    assert code == 0
    assert "2 pictures cannot be read and were skipped" in err
    assert "photo_7.jpg" in err
    assert "notes.jpg" in err


def test_overwrite(run, photos, tmp_path):
    assert run("reconstruct", photos, "--export", "points")[0] == 0
    before = (tmp_path / "out" / "reconstruction.json").read_text()
    code, _, err = run("reconstruct", photos)
    assert code == BAD_INPUT
    assert "--overwrite" in sentence(err)
    assert (tmp_path / "out" / "reconstruction.json").read_text() == before
    assert run("reconstruct", photos, "--export", "points", "--views", "2", "--overwrite")[0] == 0
    assert len(json.loads((tmp_path / "out" / "reconstruction.json").read_text())["views"]) == 2
    assert remains(tmp_path) == ["out"]


# --- the table of bad input ---------------------------------------------------------------------------------


def one_image(photos, world):
    return [photos / "photo_1.jpg"]


def the_same_image_twice(photos, world):
    return [photos / "photo_1.jpg", photos / "photo_1.jpg"]


def copies_of_one_image(photos, world):
    copy = photos / "copy.jpg"
    copy.write_bytes((photos / "photo_1.jpg").read_bytes())
    return [photos / "photo_1.jpg", copy]


def recompressed_copies(photos, world):
    Image.fromarray(world.frame(0)).save(photos / "again.jpg", quality=80)
    return [photos / "photo_1.jpg", photos / "again.jpg"]


def empty_files(photos, world):
    for name in ("a.jpg", "b.jpg"):
        (photos / name).write_bytes(b"")
    return [photos / "a.jpg", photos / "b.jpg"]


def truncated_files(photos, world):
    for name in ("photo_1.jpg", "photo_2.jpg"):
        (photos / name).write_bytes((photos / name).read_bytes()[:700])
    return [photos / "photo_1.jpg", photos / "photo_2.jpg"]


def text_called_image(photos, world):
    (photos / "a.png").write_text("hello")
    return [photos / "a.png", photos / "photo_1.jpg"]


def gigantic_image(photos, world):
    Image.new("1", (30_000, 10_000)).save(photos / "a.png")
    return [photos / "a.png", photos / "photo_1.jpg"]


def missing_file(photos, world):
    return [photos / "photo_1.jpg", photos / "photo_77.jpg"]


def folder_without_images(photos, world):
    (photos / "empty").mkdir()
    return [photos / "empty"]


def nothing(photos, world):
    return []


def still_video(photos, world):
    write_video(photos / "still.mp4", [world.frame(0)] * 10, 24)
    return [photos / "still.mp4"]


def damaged_video(photos, world):
    write_video(photos / "a.mp4", [world.frame(i) for i in range(10)], 24)
    (photos / "a.mp4").write_bytes((photos / "a.mp4").read_bytes()[:200])
    return [photos / "a.mp4"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (one_image, "at least 2 different pictures of the scene are needed"),
        (the_same_image_twice, "exactly the same picture"),
        (copies_of_one_image, "exactly the same picture"),
        (recompressed_copies, "the camera does not move"),
        (empty_files, "the file is empty"),
        (truncated_files, "damaged or truncated"),
        (text_called_image, "not an image of a known format"),
        (gigantic_image, "megapixels"),
        (missing_file, "no such file"),
        (folder_without_images, "holds no image files"),
        (nothing, "no input"),
        (still_video, "practically the same"),
        (damaged_video, "video"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_input(run, photos, world, tmp_path, inputs, message):
    code, out, err = run("reconstruct", *inputs(photos, world))
    assert code == BAD_INPUT
    assert message in sentence(err)
    assert out == ""
    assert remains(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--views", "1"], "--views: expected an integer of at least 2"),
        (["--size", "1"], "image size"),
        (["--export", "gif"], "export 'gif': expected some of"),
        (["--weights", "nowhere.safetensors"], "no weights file 'nowhere.safetensors'"),
        (["--refine", "-3"], "refine"),
        (["--refine-steps", "0"], "--refine-steps: expected an integer of at least 1"),
    ],
)
def test_bad_options(run, photos, tmp_path, options, message):
    code, _, err = run("reconstruct", photos, *options)
    assert code == BAD_INPUT
    assert message in sentence(err)
    assert remains(tmp_path) == []


def test_weights_that_are_none(run, photos, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"not weights")
    code, _, err = run("reconstruct", photos, "--weights", tmp_path / "w.safetensors")
    assert code == BAD_INPUT
    assert "readable safetensors file" in sentence(err)


def test_a_full_disk(run, photos, tmp_path, monkeypatch):
    real = Path.write_bytes

    def write_bytes(self, data):
        if ".scene" in self.name:
            real(self, data[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    code, _, err = run("reconstruct", photos)
    assert code == NO_RESOURCES
    assert "no space left on the disk" in sentence(err)
    assert remains(tmp_path) == []


def test_a_really_full_disk(tmp_path, photos, weights):
    """The same on a real file system that fills up, where mounting one is allowed."""
    full = tmp_path / "disk"
    full.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", full], capture_output=True
    ).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        command = [
            sys.executable,
            "-m",
            "nas3r.cli.main",
            "reconstruct",
            str(photos),
            "-o",
            str(full / "out"),
        ]
        done = subprocess.run([*command, "--weights", str(weights)], capture_output=True, text=True)
        assert done.returncode == NO_RESOURCES, done.stderr
        assert "no space left" in sentence(done.stderr)
        assert list(full.iterdir()) == []
    finally:
        subprocess.run(["umount", full], check=True)


def test_no_write_permission(run, photos, tmp_path, monkeypatch):
    real = Path.mkdir

    def mkdir(self, *args, **kwargs):
        if ".out" in self.name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    code, _, err = run("reconstruct", photos)
    assert code == BAD_INPUT
    assert "Permission denied" in sentence(err)
    assert remains(tmp_path) == []


def test_no_permission_shows_before_the_work(run, photos, monkeypatch):
    monkeypatch.setattr("nas3r.reconstruction.reconstruct", lambda *a, **k: pytest.fail("work was begun"))
    code, _, err = run("reconstruct", photos, out="../../../../../proc/nowhere")
    assert code == BAD_INPUT
    sentence(err)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory(run, photos, tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("nas3r.models.NAS3R.encode_context", fail)
    code, _, err = run("reconstruct", photos)
    assert code == NO_RESOURCES
    assert "out of memory: use fewer or smaller images (--views, --size)" in sentence(err)
    assert remains(tmp_path) == []


def test_an_unreadable_photo_is_skipped(run, photos, monkeypatch):
    real = Path.open

    def no_access(self, *args, **kwargs):
        if self.name == "photo_2.jpg":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", no_access)
    code, _, err = run("reconstruct", photos, "--export", "points")
    assert code == 0
    assert "photo_2.jpg (Permission denied)" in err


def test_a_result_of_other_files_is_never_replaced(run, photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    for options in ([], ["--overwrite"]):
        code, _, err = run("reconstruct", photos, *options)
        assert code == BAD_INPUT
        assert "no nas3r result" in sentence(err)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("stage", ["nas3r.models.NAS3R.encode_context", "nas3r.io.colmap.write_text"])
def test_ctrl_c_leaves_an_earlier_result(run, photos, tmp_path, monkeypatch, stage):
    assert run("reconstruct", photos, "--export", "points")[0] == 0
    before = (tmp_path / "out" / "reconstruction.json").read_text()

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, interrupt)
    code, _, err = run("reconstruct", photos, "--overwrite")
    assert code == INTERRUPTED
    assert sentence(err) == "nas3r: interrupted"
    assert remains(tmp_path) == ["out"]
    assert (tmp_path / "out" / "reconstruction.json").read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.5, 2.0, 4.0, 6.0])
def test_a_real_ctrl_c_at_any_moment(photos, weights, tmp_path, delay):
    command = [
        sys.executable,
        "-m",
        "nas3r.cli.main",
        "reconstruct",
        str(photos),
        "-o",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        [*command, "--weights", str(weights), "--refine", "30"], stderr=subprocess.PIPE, text=True
    )
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    # The latter: before Python had started up.
    assert process.returncode in (INTERRUPTED, -signal.SIGINT), err
    if process.returncode == INTERRUPTED:
        assert "Traceback" not in err
    assert remains(tmp_path) == []


# --- other verbs --------------------------------------------------------------------------------------------


@pytest.fixture
def result(run, photos, tmp_path):
    assert run("reconstruct", photos, "--export", "nerfstudio")[0] == 0
    return tmp_path / "out"


def test_render_videos(run, result, tmp_path):
    assert run("render", result, "--frames", "8", "--size", "64")[0] == 0
    info = video_info(result / "views.mp4")
    assert (info.width, info.height, info.frames) == (128, 50, 8)
    out = tmp_path / "orbit.mp4"
    assert run("render", result, "--path", "orbit", "--frames", "5", "--size", "64", "-o", out)[0] == 0
    assert video_info(out).frames == 5
    code, _, err = run("render", result, "--path", "orbit", "-o", out)
    assert code == BAD_INPUT
    assert "--overwrite" in sentence(err)


@pytest.mark.parametrize("name", ["cameras.json", "transforms.json"])
def test_render_given_cameras_as_frames(run, result, tmp_path, name):
    out = tmp_path / "frames"
    code, _, _ = run("render", result, "--path", result / name, "--size", "80", "--color-only", "-o", out)
    assert code == 0
    files = sorted(out.iterdir())
    assert [file.name for file in files] == [f"frame_{i:05d}.png" for i in range(4)]
    with Image.open(files[0]) as image:
        assert image.size == (80, 60)  # the shape of the photos, not of the network's images


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--path", "wobble"], "path: expected views, orbit, or a .json file"),
        (["--path", "nowhere.json"], "no such file"),
    ],
)
def test_bad_render_options(run, result, arguments, message):
    code, _, err = run("render", result, *arguments)
    assert code == BAD_INPUT
    assert message in sentence(err)


def test_render_needs_a_result(run, tmp_path):
    code, _, err = run("render", tmp_path)
    assert code == BAD_INPUT
    assert "no nas3r result there" in sentence(err)


def test_demo_knows_the_truth(run, tmp_path, weights, monkeypatch):
    from nas3r.cli import demo

    real = demo.film
    monkeypatch.setattr(demo, "film", lambda seed: real(seed, frames=8, height=60, width=80))
    out = tmp_path / "out"
    code, text, _ = run("demo", "-o", out, "--weights", weights, "--views", "3", "--refine", "0", "--json")
    assert code == 0
    truth = json.loads(text)["scores"]["truth"]
    assert set(truth) == {"rotation_degrees", "translation_degrees", "focal_percent"}
    assert all(np.isfinite(value) for value in truth.values())
    assert (out / "report.html").is_file()


@pytest.mark.parametrize("verb", ["reconstruct", "render", "demo"])
def test_help(run, capfd, verb):
    with pytest.raises(SystemExit) as done:
        main([verb, "--help"])
    assert not done.value.code
    assert f"usage: nas3r {verb}" in capfd.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_verbs_and_options(tmp_path):
    script = subprocess.run(
        [sys.executable, "-m", "nas3r.cli.main", "--print-completion", "bash"], capture_output=True, text=True
    ).stdout
    (tmp_path / "completion").write_text(script)

    def complete(*words):
        ask = (
            f"source {tmp_path}/completion; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
            "_tyro_nas3r; printf '%s\\n' ${COMPREPLY[@]}"
        )
        return subprocess.run(["bash", "-c", ask], capture_output=True, text=True).stdout.split()

    assert complete("nas3r", "rec") == ["reconstruct"]
    assert "--refine" in complete("nas3r", "reconstruct", "--re")


def test_completion_of_an_unknown_shell(capfd):
    assert main(["--print-completion", "fish"]) == BAD_INPUT
    assert "expected one of bash, zsh, tcsh" in sentence(capfd.readouterr().err)


def test_no_bars_where_nobody_looks(run, photos):
    _, _, err = run("reconstruct", photos, "--export", "points")
    assert "%|" not in err
    assert "\r" not in err


def test_help_does_not_load_torch():
    code = (
        "import sys, nas3r.cli.reconstruct, nas3r.cli.render, nas3r.cli.demo; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
