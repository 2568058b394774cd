"""The page that shows what training will see."""

import re
from pathlib import Path

import numpy as np
import pytest
from numbered_clips import numbered

from nas3r.data.inspection import inspect_source, write_page
from nas3r.data.sampling import GapSchedule, MotionSchedule, ViewSampler
from nas3r.data.sources import open_source
from nas3r.io.images import save_image

SAMPLER = ViewSampler(GapSchedule((2, 3), (4, 40), 100), context_views=2, target_views=2)


def test_findings(frame_folders: Path) -> None:
    (frame_folders / "pair").mkdir()
    for i in range(2):
        save_image(frame_folders / "pair" / f"{i}.png", numbered(0, 0))
    (frame_folders / "clip4" / "5.png").write_bytes(b"no image")
    told: list[str] = []
    found = inspect_source(
        open_source(frame_folders), SAMPLER, steps=(0, 100), height=16, width=16, clips=9, samples=3,
        progress=lambda what, done, total: told.append(what),
    )  # fmt: skip
    assert found.clips == 5
    assert {look.name for look in found.looks} == {f"clip{i}" for i in range(4)}
    assert found.looks[0].frames == 12
    assert len(found.looks[0].moves) == 11
    reasons = dict(found.rejected)
    assert reasons["pair"] == "fewer than 3 images"
    assert any("5.png" in reason for reason in reasons.values())
    first = found.steps[0]
    assert first.bounds == (2, 3)
    assert first.usable == 1
    sample = first.samples[0]
    assert sample.gap == sample.context[1] - sample.context[0] == 3
    assert all(sample.context[0] < frame < sample.context[1] for frame in sample.target)
    assert len(sample.images) == 4
    assert sample.images[0].shape == (16, 16, 3)
    assert set(told) == {"looking at clips", "drawing samples"}


def test_copying_is_measured_against_the_nearest_context(frame_folders: Path) -> None:
    sampler = ViewSampler(GapSchedule((2, 2), (2, 2), 0))
    found = inspect_source(open_source(frame_folders), sampler, steps=(0,), height=24, width=32, samples=1)
    # green differs by 8 grey levels between neighbours, in one channel of three
    assert found.steps[0].samples[0].copy_psnr == pytest.approx(-10 * np.log10(64 / 3 / 255**2), abs=0.01)


def test_warnings(frame_folders: Path) -> None:
    source = open_source(frame_folders)
    far = ViewSampler(GapSchedule((30, 40), (30, 40), 0))
    found = inspect_source(source, far, steps=(0,), height=16, width=16, samples=2)
    assert found.steps[0].samples == ()
    assert any("no usable clip" in warning for warning in found.warnings)


def test_page_is_one_file_and_names_are_escaped(frame_folders: Path, tmp_path: Path) -> None:
    (frame_folders / "clip0").rename(frame_folders / "<script>alert(1)</script>".replace("/", ""))
    page = tmp_path / "report.html"
    found = inspect_source(open_source(frame_folders), SAMPLER, steps=(0, 50), height=16, width=16)
    write_page(page, found, "a <b> c", [("fact", "x < y")], [("film.mp4, frame 3", "static (20 frames)")])
    text = page.read_text()
    assert "<script" not in text
    assert "a &lt;b&gt; c" in text
    assert "film.mp4, frame 3" in text
    assert text.count("data:image/jpeg;base64,") > 20
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["report.html"]


def test_motion_curriculum_is_shown_in_percent(frame_folders: Path, tmp_path: Path) -> None:
    sampler = ViewSampler(MotionSchedule((0.0, 0.1), (0.0, 0.2), 10))
    found = inspect_source(open_source(frame_folders), sampler, steps=(10,), height=16, width=16)
    write_page(tmp_path / "report.html", found, "motion")
    assert "0 to 20 % motion" in (tmp_path / "report.html").read_text()
