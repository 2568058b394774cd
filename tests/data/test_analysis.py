"""Motion between frames against known motion, and shot boundaries against known ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas3r.data.analysis import LOST_MOTION, align, reduce, thumbnail, travel
from nas3r.data.shots import Label, label_frames
from nas3r.io.images import load_image
from nas3r.io.video import read_frames


def pattern(seed: int) -> np.ndarray:
    """A random picture with detail at several scales, 512 x 384."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.random((3 * n, 4 * n))).resize((512, 384), Image.Resampling.BICUBIC))
        for n in (2, 4, 8, 16)
    ]
    mixed = sum(layer / 2**i for i, layer in enumerate(layers))
    mixed = (mixed - mixed.min()) / np.ptp(mixed)
    return np.repeat((mixed * 255).astype(np.uint8)[..., None], 3, 2)


def view(picture: np.ndarray, dx: float = 0, dy: float = 0, zoom: float = 1) -> np.ndarray:
    """The middle 256 x 192 pixels of the picture, its content moved right by dx and down by dy pixels."""
    matrix = (1 / zoom, 0, 128 + 128 * (1 - 1 / zoom) - dx, 0, 1 / zoom, 96 + 96 * (1 - 1 / zoom) - dy)
    image = Image.fromarray(picture).transform(
        (256, 192), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    return np.asarray(image)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 50), st.floats(-60, 60), st.floats(-50, 50))
def test_shifts_are_measured(seed: int, dx: float, dy: float) -> None:
    picture = pattern(seed)
    found = align(thumbnail(view(picture)), thumbnail(view(picture, dx, dy)))
    # a tenth of a thumbnail pixel
    assert found.motion == pytest.approx(np.hypot(dx, dy) / 256, abs=0.1 / 64)
    assert found.match > 0.95


@pytest.mark.parametrize("zoom", [0.9, 1.02, 1.15])
def test_zoom_is_measured(zoom: float) -> None:
    found = align(thumbnail(view(pattern(1))), thumbnail(view(pattern(1), zoom=zoom)))
    y, x = np.mgrid[:192, :256]
    moved = np.hypot(x - 127.5, y - 95.5).mean() * abs(zoom - 1) / 256
    assert found.motion == pytest.approx(moved, rel=0.05)


def test_exposure_and_noise_are_no_motion() -> None:
    first = view(pattern(2))
    noise = np.random.default_rng(0).normal(0, 5, first.shape)
    brighter = np.clip(first * 0.7 + 40 + noise, 0, 255).astype(np.uint8)
    found = align(thumbnail(first), thumbnail(brighter))
    # the noise leaves 1.25 grey levels in a thumbnail pixel, a percent of the contrast between neighbours
    assert found.motion < 0.002
    assert found.match > 0.99
    assert align(thumbnail(first), thumbnail(first)).motion == 0


def test_unrelated_frames_are_lost() -> None:
    matches = []
    for seed in range(12):
        found = align(thumbnail(view(pattern(seed))), thumbnail(view(pattern(seed + 100))))
        matches.append(found.match)
        if not found.related:
            assert found.motion == LOST_MOTION
    assert np.median(matches) < 0.4


def test_flat_frames_do_not_fail() -> None:
    grey, white = np.full((48, 64), 0.5, np.float32), np.ones((48, 64), np.float32)
    assert align(grey, white).motion == pytest.approx(0, abs=1e-6)


def test_travel_adds_up() -> None:
    frames = shot(3, 8, speed=4)
    np.testing.assert_allclose(travel(frames), np.arange(8) * 4 / 256, atol=0.002)
    assert travel(frames[:1]).tolist() == [0]


def test_thumbnails_and_blocks() -> None:
    assert thumbnail(np.zeros((100, 200, 3), np.uint8)).shape == (32, 64)
    assert thumbnail(np.zeros((200, 100, 3), np.uint8)).shape == (64, 32)
    assert thumbnail(np.zeros((5, 900, 3), np.uint8)).shape == (16, 64)
    assert reduce(np.arange(12, dtype=np.float32).reshape(3, 4), 2).tolist() == [[2.5, 4.5]]


def shot(seed: int, frames: int, speed: float = 1.5) -> list[np.ndarray]:
    picture = pattern(seed)
    return [thumbnail(view(picture, dx=speed * i)) for i in range(frames)]


def labels(frames: list[np.ndarray]) -> list[Label]:
    return [labelled.label for labelled in label_frames(frames)]


@pytest.mark.parametrize("frames", [1, 2, 32, 33, 34, 50])
def test_one_shot_stays_whole(frames: int) -> None:
    assert labels(shot(1, frames)) == [Label.CONTINUES] * frames


def test_nothing_to_label() -> None:
    assert labels([]) == []


def test_hard_cuts() -> None:
    found = labels(shot(1, 40) + shot(2, 30) + shot(3, 3) + shot(4, 20))
    assert [i for i, label in enumerate(found) if label is not Label.CONTINUES] == [40, 70, 73]
    assert all(found[i] is Label.CUT for i in (40, 70, 73))


@pytest.mark.parametrize("length", [8, 16, 24])
def test_dissolves(length: int) -> None:
    first, second = shot(1, 40 + length, speed=0.3), shot(2, 40 + length, speed=0.3)
    weights = np.linspace(0, 1, length + 2)[1:-1]
    blend = [a * (1 - w) + b * w for a, b, w in zip(first[40:], second[:length], weights)]
    found = labels(first[:40] + blend + second[length:])
    marked = [i for i, label in enumerate(found) if label is not Label.CONTINUES]
    assert marked
    assert min(marked) >= 40 - 16
    assert max(marked) <= 40 + length + 16
    assert found[40 + length // 2] is Label.TRANSITION


def test_blank_frames() -> None:
    black = [np.zeros((48, 64), np.float32)] * 5
    found = labels(shot(1, 20) + black + shot(1, 20))
    assert found[20:25] == [Label.BLANK] * 5
    assert found[:20] == [Label.CONTINUES] * 20
    assert found[26:] == [Label.CONTINUES] * 19


def test_flash_and_exposure_do_not_cut() -> None:
    frames = shot(1, 40)
    frames[20] = np.clip(frames[20] * 1.5 + 0.1, 0, 1)
    frames[25:] = [0.6 * frame for frame in frames[25:]]
    assert labels(frames) == [Label.CONTINUES] * 40


@pytest.fixture(scope="module")
def real_thumbnails(shared_data: Path) -> Callable[[str, int], list[np.ndarray]]:
    def read(name: str, count: int) -> list[np.ndarray]:
        path = shared_data / "renders_haofeixu" / f"{name}.mp4"
        return [thumbnail(image) for image in read_frames(path, range(count), max_size=320)]

    return read


def test_real_cut_and_no_other(real_thumbnails: Callable[[str, int], list[np.ndarray]]) -> None:
    frames = real_thumbnails("dl3dv_14eb4", 45) + real_thumbnails("dl3dv_0bfdd", 40)
    found = labels(frames)
    assert [i for i, label in enumerate(found) if label is not Label.CONTINUES] == [45]


def test_hand_held_video_has_no_cut(shared_data: Path) -> None:
    files = sorted((shared_data / "7scenes_redkitchen" / "color").glob("*.jpg"))[:60]
    assert set(labels([thumbnail(load_image(file)) for file in files])) == {Label.CONTINUES}
