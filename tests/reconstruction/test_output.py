"""The result folder appears complete or not at all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas3r.reconstruction import output
from nas3r.reconstruction.output import FORMAT, MANIFEST, check_output, output_folder, written_files
from nas3r.stopping import StopSignals


def manifest(folder, text):
    document = {"format": FORMAT, "text": text, "files": [*written_files(folder), MANIFEST]}
    (folder / MANIFEST).write_text(json.dumps(document))


def text_of(folder):
    return json.loads((folder / MANIFEST).read_text())["text"]


def make_result(folder, text="old"):
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "old.png").write_text("old photo")
    (folder / "scene.ply").write_text("old scene")
    manifest(folder, text)


def write(folder, text="new", error=None, **options):
    with output_folder(folder, **options) as staging:
        (staging / "images").mkdir()
        (staging / "images" / "new.png").write_text("new photo")
        manifest(staging, text)
        if error is not None:
            raise error


def leftovers(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_a_new_folder_appears_at_the_end(tmp_path):
    write(tmp_path / "deep" / "out")
    assert text_of(tmp_path / "deep" / "out") == "new"
    assert leftovers(tmp_path / "deep") == ["out"]


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    assert leftovers(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_failure_leaves_an_earlier_result_alone(tmp_path, error, overwrite):
    if overwrite:
        make_result(tmp_path / "out")
    with pytest.raises(type(error)):
        write(tmp_path / "out", error=error, overwrite=overwrite)
    assert leftovers(tmp_path) == (["out"] if overwrite else [])
    if overwrite:
        assert text_of(tmp_path / "out") == "old"


@pytest.fixture(params=["one step", "two steps"])
def way(request, monkeypatch):
    """How folders are exchanged; not every file system can do it in one step."""
    if request.param == "two steps":
        monkeypatch.setattr(output, "_exchange", lambda a, b: False)


@pytest.mark.usefixtures("way")
def test_overwriting_replaces_what_we_wrote_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    make_result(out)
    (out / "notes.txt").write_text("years of work")
    (out / "edits" / "deep").mkdir(parents=True)
    (out / "edits" / "deep" / "filtered-1.ply").write_text("mine")
    (out / "images" / "holiday.jpg").write_text("mine too")
    (out / "empty").mkdir()
    (out / "link").symlink_to("notes.txt")
    write(out, overwrite=True)
    assert text_of(out) == "new"
    assert [p.relative_to(out).as_posix() for p in sorted(out.rglob("*")) if p.is_file()] == [
        *("edits/deep/filtered-1.ply", "images/holiday.jpg", "images/new.png", "link", "notes.txt"),
        MANIFEST,
    ]
    assert (out / "notes.txt").read_text() == "years of work"
    assert (out / "link").is_symlink()
    assert (out / "empty").is_dir()
    assert leftovers(tmp_path) == ["out"]
    write(out, "newer", overwrite=True)  # and once more
    assert (out / "edits" / "deep" / "filtered-1.ply").read_text() == "mine"


def test_results_that_do_not_list_their_files_lose_only_known_ones(tmp_path):
    out = tmp_path / "out"
    make_result(out)
    (out / MANIFEST).write_text(json.dumps({"format": FORMAT}))
    (out / "notes.txt").write_text("mine")
    write(out, overwrite=True)
    assert leftovers(out) == ["images", "notes.txt", MANIFEST]
    assert leftovers(out / "images") == ["new.png"]


def test_a_file_of_yours_under_a_name_that_is_needed_is_not_replaced(tmp_path):
    out = tmp_path / "out"
    make_result(out)
    (out / "images" / "new.png").write_text("mine")
    with pytest.raises(FileExistsError, match=r"new\.png: is not part of the earlier result"):
        write(out, overwrite=True)
    assert (out / "images" / "new.png").read_text() == "mine"
    assert text_of(out) == "old"
    assert leftovers(tmp_path) == ["out"]


@pytest.mark.parametrize("content", ["{}", "[]", "null", "not json", '{"format": "opensfm"}', "[" * 10_000])
def test_folders_of_other_tools_are_no_results(tmp_path, content):
    """OpenSfM, for one, writes a file of the same name."""
    out = tmp_path / "out"
    out.mkdir()
    (out / MANIFEST).write_text(content)
    with pytest.raises(FileExistsError, match="no nas3r result"):
        write(out, overwrite=True)
    assert (out / MANIFEST).read_text() == content


def test_inputs_inside_the_result_folder_are_refused(tmp_path):
    out = tmp_path / "out"
    make_result(out)
    (tmp_path / "other").symlink_to(out)
    for path in (out, out / "images", out / "images" / "old.png", tmp_path / "other" / "images"):
        with pytest.raises(ValueError, match="lies inside the result folder"):
            check_output(out, overwrite=True, inputs=[path])
    check_output(out, overwrite=True, inputs=[tmp_path])


def test_a_failed_swap_leaves_the_earlier_result(tmp_path, monkeypatch):
    make_result(tmp_path / "out")
    real = Path.rename

    def rename(self, target):
        if self.name.endswith(".unfinished"):
            raise PermissionError("no")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(output, "_exchange", lambda a, b: False)
    with pytest.raises(PermissionError):
        write(tmp_path / "out", overwrite=True)
    assert text_of(tmp_path / "out") == "old"
    assert leftovers(tmp_path) == ["out"]


WRITER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & and nohup ignore them
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from pathlib import Path
from nas3r.reconstruction import output
from nas3r.stopping import StopSignals
out, where = Path(sys.argv[1]), sys.argv[2]
if where == "between":
    output._exchange = lambda a, b: False
    real = Path.rename
    def rename(self, target):
        result = real(self, target)
        if target.name.endswith(".earlier"):
            print("now", flush=True)
            time.sleep(60)
        return result
    Path.rename = rename
with StopSignals(), output.output_folder(out, overwrite=True) as staging:
    (staging / output.MANIFEST).write_text('{"format": "nas3r-reconstruction", "text": "new"}')
    if where == "inside":
        print("now", flush=True)
        time.sleep(60)
"""


def start_and_signal(out, where, number):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(out), where], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"now\n"
    process.send_signal(number)
    process.wait(timeout=30)


@pytest.mark.skipif(sys.platform == "win32", reason="signals and locks of POSIX")
@pytest.mark.parametrize("where", ["inside", "between"])
def test_the_next_start_repairs_what_a_kill_left(tmp_path, where):
    out = tmp_path / "out"
    make_result(out)
    start_and_signal(out, where, signal.SIGKILL)
    assert len(leftovers(tmp_path)) == 2
    with pytest.raises(FileExistsError, match="--overwrite"):
        write(out)  # the earlier result is there, as before
    assert text_of(out) == "old"
    assert leftovers(tmp_path) == ["out"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals and locks of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_leave_nothing_behind(tmp_path, name):
    out = tmp_path / "out"
    make_result(out)
    start_and_signal(out, "inside", getattr(signal, name))
    assert text_of(out) == "old"
    assert leftovers(tmp_path) == ["out"]


def test_unfinished_results_of_living_processes_are_left_alone(tmp_path):
    out = tmp_path / "out"

    def overtaken():
        with output_folder(out) as first:
            manifest(first, "first")
            write(out, "second")
            assert first.is_dir()

    with pytest.raises(FileExistsError, match="--overwrite"):
        overtaken()
    assert text_of(out) == "second"  # who finishes first stays
    assert leftovers(tmp_path) == ["out"]


def test_once_asked_to_stop_nothing_is_replaced(tmp_path):
    """Also if the exception was swallowed, as callbacks of compilers do."""
    make_result(tmp_path / "out")

    def interrupted():
        with StopSignals(), output_folder(tmp_path / "out", overwrite=True):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            except KeyboardInterrupt:
                pass

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert text_of(tmp_path / "out") == "old"
    assert leftovers(tmp_path) == ["out"]


def test_what_is_no_result_is_never_deleted(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="no nas3r result"):
            write(tmp_path / "out", overwrite=overwrite)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="a file of that name"):
        write(tmp_path / "file", overwrite=True)


def test_an_earlier_result_needs_overwrite(tmp_path):
    make_result(tmp_path / "out")
    with pytest.raises(FileExistsError, match="--overwrite"):
        write(tmp_path / "out")


def test_a_link_keeps_pointing_to_the_new_result(tmp_path):
    make_result(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert text_of(tmp_path / "real") == "new"
