"""The result folder appears complete or not at all."""

import pytest

from nas3r.reconstruction.output import MANIFEST, output_folder


def make_result(folder, text="old"):
    folder.mkdir()
    (folder / MANIFEST).write_text(text)


def write(folder, text="new", error=None, **options):
    with output_folder(folder, **options) as staging:
        (staging / MANIFEST).write_text(text)
        (staging / "images").mkdir()
        if error is not None:
            raise error


def leftovers(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_a_new_folder_appears_at_the_end(tmp_path):
    write(tmp_path / "deep" / "out")
    assert (tmp_path / "deep" / "out" / MANIFEST).read_text() == "new"
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
        assert (tmp_path / "out" / MANIFEST).read_text() == "old"


def test_overwriting_replaces_the_whole_folder(tmp_path):
    make_result(tmp_path / "out")
    (tmp_path / "out" / "old.txt").write_text("old")
    write(tmp_path / "out", overwrite=True)
    assert leftovers(tmp_path / "out") == ["images", MANIFEST]
    assert leftovers(tmp_path) == ["out"]


def test_a_failed_swap_puts_the_earlier_result_back(tmp_path, monkeypatch):
    from pathlib import Path

    make_result(tmp_path / "out")
    real = Path.rename

    def rename(self, target):
        if self.name.startswith(".out") and not self.name.endswith(".old"):
            raise PermissionError("no")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(PermissionError):
        write(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / MANIFEST).read_text() == "old"
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
    assert (tmp_path / "real" / MANIFEST).read_text() == "new"
