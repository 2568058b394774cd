import errno

import pytest

from nas3r.io.atomic import atomic_path, write_text


def interrupted_write(path, error):
    with atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise error


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    write_text(path, "old")
    with pytest.raises(OSError, match="full"):
        interrupted_write(path, OSError(errno.ENOSPC, "full"))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_interruption_is_cleaned_up_too(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted_write(tmp_path / "a.png", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_name_keeps_the_suffix_and_parents_are_made(tmp_path):
    with atomic_path(tmp_path / "a" / "b.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("done")
    assert (tmp_path / "a" / "b.png").read_text() == "done"
