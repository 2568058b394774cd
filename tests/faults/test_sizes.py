"""Sizes are computed before memory is taken: too much is refused at once, with what would fit."""

import io
import json
import math
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from nas3r import memory
from nas3r.cli.main import main
from nas3r.io import images
from nas3r.io.images import Resize, image_size, is_read_reduced, load_image
from nas3r.memory import InsufficientMemoryError, require_memory
from nas3r.models import load
from nas3r.reconstruction import ReconstructOptions, reconstruct
from nas3r.reconstruction.estimate import estimate, memory_needed, require_fit
from nas3r.refine.budget import Budget
from nas3r.training import recipes
from nas3r.training.memory import memory_of_training

NO_RESOURCES = 3


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (5_000, 2), (3, 9_000)])
@pytest.mark.parametrize("exact", [True, False])
def test_narrow_strips_are_never_blown_up(size, exact, monkeypatch):
    made = []
    real = Image.Image.resize

    def resize(self, shape, *rest, **options):
        made.append(math.prod(shape))
        return real(self, shape, *rest, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    resize_to = Resize(*size, 256, 128, exact)
    out = resize_to.apply(np.full((size[1], size[0], 3), 7, np.uint8))
    assert out.shape == (128, 256, 3)
    assert (out == 7).all()
    assert max(made) <= 256 * 128


def test_strips_show_what_the_whole_way_would_show():
    strip = np.random.default_rng(0).integers(0, 255, (4, 300, 3)).astype(np.uint8)
    resize = Resize(300, 4, 24, 16)
    width, height = resize.scaled_size
    left, top = resize.offset
    whole = np.asarray(Image.fromarray(strip).resize((width, height), Image.Resampling.LANCZOS))
    expected = whole[top : top + 16, left : left + 24].astype(int)
    assert np.abs(resize.apply(strip).astype(int) - expected).max() <= 1  # rounding of 8-bit values


def test_a_strip_among_the_photos(photos, weights, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (1, 20_000, 3)).astype(np.uint8)).save(
        photos / "strip.png"
    )
    result = reconstruct(photos, ReconstructOptions(views=5), weights=weights)
    assert len(result.views) == 5


@pytest.mark.parametrize("limit", [100, 25])
def test_large_jpegs_are_read_reduced_and_others_refused(limit, tmp_path, monkeypatch):
    picture = Image.radial_gradient("L").convert("RGB").resize((64, 32))
    picture.save(tmp_path / "a.jpg", quality=95)
    picture.save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 32 * limit // 400)
    shape = (16, 32, 3) if limit == 100 else (8, 16, 3)
    assert is_read_reduced(tmp_path / "a.jpg")
    assert load_image(tmp_path / "a.jpg").shape == shape
    assert image_size(tmp_path / "a.jpg") == (shape[1], shape[0])
    with pytest.raises(ValueError, match="megapixels; scale it down"):
        load_image(tmp_path / "a.png")


def test_small_jpegs_are_read_as_they_are(photos):
    assert not is_read_reduced(photos / "photo_1.jpg")
    assert image_size(photos / "photo_1.jpg") == (160, 120)


def test_upright_and_reduced(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (64, 32)).save(tmp_path / "a.jpg", exif=exif)
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 32 // 4)
    assert load_image(tmp_path / "a.jpg").shape == (32, 16, 3)
    assert image_size(tmp_path / "a.jpg") == (16, 32)


def test_the_header_alone_decides(tmp_path, monkeypatch):
    """A few bytes that claim a hundred megapixels are refused before anything is decoded."""
    data = io.BytesIO()
    Image.new("1", (16_000, 10_000)).save(data, "PNG")
    (tmp_path / "a.png").write_bytes(data.getvalue())
    monkeypatch.setattr(memory, "available_memory", lambda: 500 * 2**20)
    with pytest.raises(InsufficientMemoryError, match=r"16000 x 10000 pixels.*scale it down"):
        load_image(tmp_path / "a.png")


def test_too_little_memory_is_said_with_what_would_fit(photos, weights, tmp_path, capsys, monkeypatch):
    arguments = ["reconstruct", str(photos), "-o", str(tmp_path / "out"), "--weights", str(weights)]
    started = time.monotonic()
    assert main([*arguments, "--size", "60000"]) == NO_RESOURCES
    assert time.monotonic() - started < 60  # it is computed, not tried out
    said = capsys.readouterr().err
    assert "would take about" in said
    size = int(said.split("--size ")[1].split()[0])
    assert 16 <= size < 60_000
    model = load(weights, "cpu")
    require_fit(model, 4, size, size)
    assert list(tmp_path.glob("*out*")) == []


def test_what_fits_by_the_message_fits(weights, monkeypatch):
    model = load(weights, "cpu")
    monkeypatch.setattr("nas3r.reconstruction.estimate.available_memory", lambda: 2 * 2**30)
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * 2**30)
    with pytest.raises(InsufficientMemoryError) as raised:
        require_fit(model, 8, 4096, 2048)
    side = int(str(raised.value).split("--size ")[1].split()[0])
    require_fit(model, 8, side, side)
    with pytest.raises(InsufficientMemoryError):
        require_fit(model, 8, 2 * side, 2 * side)


@pytest.mark.parametrize("kind", ["system", "container", "process"])
def test_the_least_of_all_limits_counts(kind, monkeypatch):
    for name in ("system", "container", "process"):
        monkeypatch.setattr(memory, f"_of_{name}", lambda found=100 if name == kind else None: found)
    assert memory.available_memory() == 100
    require_memory(100, "this", "that")
    with pytest.raises(InsufficientMemoryError, match="this would take about"):
        require_memory(101, "this", "that")


def test_unknown_limits_refuse_nothing(monkeypatch):
    for name in ("system", "container", "process"):
        monkeypatch.setattr(memory, f"_of_{name}", lambda: None)
    require_memory(10**18, "this", "that")


def test_a_limit_of_the_shell_counts():
    code = "from nas3r.memory import available_memory; print(available_memory())"
    script = f"ulimit -v 4000000; {sys.executable} -c '{code}'"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert 0 < int(done.stdout) < 4_000_000 * 1024


def test_results_of_a_size_that_is_made_up(saved_result, tmp_path, capsys):
    import shutil

    folder = tmp_path / "result"
    shutil.copytree(saved_result, folder)
    path = folder / "reconstruction.json"
    document = json.loads(path.read_text())
    for size in ([10**6, 10**6], [16, 10**9], [10**30, 1], [0, 0], [-5, 3]):
        path.write_text(json.dumps({**document, "size": size}))
        assert main(["render", str(folder)]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_rendering_larger_than_memory(saved_result, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2**30)
    assert main(["render", str(saved_result), "--size", "60000"]) == NO_RESOURCES
    assert "choose a smaller one" in capsys.readouterr().err


def test_training_larger_than_memory(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nas3r.training.memory.available_memory", lambda: 2**30)
    monkeypatch.setattr(memory, "available_memory", lambda: 2**30)
    for more in ([], ["--no-validate"], ["--given-intrinsics"]):
        run = ["train", "tiny-synthetic", "-o", str(tmp_path / "run"), "--size", "1024", *more]
        assert main(run) == NO_RESOURCES
        said = capsys.readouterr().err.strip()
        assert len(said.splitlines()) == 1
        assert "batches of 8 and images of 1024 x 1024 pixels would take about" in said
        side = int(said.split("--size ")[1].split()[0])
        assert side % 8 == 0
        config = recipes.get("tiny-synthetic")
        for size, fits in ((side, True), (side + 16, False)):
            sized = replace(config, data=replace(config.data, height=size, width=size))
            assert (memory_of_training(sized) <= 2**30) is fits
    assert list(tmp_path.iterdir()) == []


def test_training_counts_batches_views_and_pools():
    config = recipes.get("tiny-paper")
    data = config.data
    larger = [
        replace(data, batch_size=2 * data.batch_size),
        replace(data, pool=2 * data.pool),
        replace(data, sampler=replace(data.sampler, target_views=3)),
    ]
    for other in larger:
        assert memory_of_training(replace(config, data=other)) > memory_of_training(config)
    pool = 3 * data.height * data.width * data.pool * data.synthetic.frames  # bytes of RGB
    assert memory_of_training(replace(config, data=replace(data, pool=2 * data.pool))) == pytest.approx(
        memory_of_training(config) + pool
    )
    assert memory_of_training(config, processes=2) < memory_of_training(config)


@pytest.mark.parametrize("layout", ["folders", "shards"])
def test_clips_larger_than_memory(layout, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nas3r.data.synthesis.available_memory", lambda: 2**28)
    monkeypatch.setattr(memory, "available_memory", lambda: 2**28)
    arguments = ["data", "synthesise", "-o", str(tmp_path / "out"), "--layout", layout]
    assert main([*arguments, "--size", "60000", "30000"]) == NO_RESOURCES
    said = capsys.readouterr().err.strip()
    width, height = map(int, said.split("--size ")[1].split()[:2])
    assert width == pytest.approx(2 * height, rel=0.02)
    assert 40 * 64 * width * height <= 2**28 < 40 * 64 * 1.05 * width * height
    assert main([*arguments, "--frames", "100000000"]) == NO_RESOURCES
    assert "--frames" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_computes_only(photos, weights, monkeypatch):
    def never(*unused, **unused_too):
        raise AssertionError("the network ran")

    monkeypatch.setattr(torch.nn.Module, "__call__", never)
    figures = estimate(photos, ReconstructOptions(views=3), weights=weights)
    assert figures.width * figures.height > 0
    huge = estimate(photos, ReconstructOptions(views=3, size=60_000), weights=weights)
    assert huge.bytes > 1000 * figures.bytes
    assert huge.seconds > 1000 * figures.seconds
    assert figures.seconds < 60


def test_more_views_and_pixels_take_more(weights):
    model = load(weights, "cpu")
    least = memory_needed(model, 2, 64, 64)
    assert least < memory_needed(model, 4, 64, 64) < memory_needed(model, 4, 128, 128)


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.mark.parametrize("step", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("closing", [0.0, 2.0, 5.0])
def test_a_budget_of_time_is_kept(step, closing, monkeypatch):
    clock = Clock(monkeypatch)
    budget = Budget(seconds=60)
    budget.reserve = closing
    for _ in budget.until(1.0):
        clock.now += step
    clock.now += closing
    assert 54 <= clock.now <= 60.0


def test_a_budget_that_the_first_step_exceeds(monkeypatch):
    clock = Clock(monkeypatch)
    budget = Budget(seconds=10)
    for _ in budget.until(1.0):
        clock.now += 8
    assert clock.now == 8


def test_adapting_says_what_it_lacks(photos, weights, tmp_path, capsys):
    arguments = ["reconstruct", str(photos), "-o", str(tmp_path / "out"), "--weights", str(weights)]
    assert main([*arguments, "--adapt", "1"]) == 2
    assert "beside those that are kept aside" in capsys.readouterr().err
