"""Synthetic clips and scenes: repeatable, told apart, drawn as configured."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nas3r.data.synthetic import (
    FAMILIES,
    PATHS,
    SyntheticClips,
    SyntheticConfig,
    SyntheticScenes,
    fit_aspect,
    render_clip_batch,
    sample_paths,
    sample_worlds,
)
from nas3r.data.synthetic.sources import held_out_seed, training_seed
from nas3r.data.synthetic.space import free_distance
from nas3r.io.images import save_image

CONFIG = SyntheticConfig(frames=10)
SEEDS = [21, 22, 23, 24]


def test_frames_do_not_depend_on_how_they_are_asked_for() -> None:
    whole = render_clip_batch(SEEDS, [[0, 4, 9]] * 4, 16, 16, CONFIG)
    assert torch.equal(render_clip_batch(SEEDS, [[0, 4, 9]] * 4, 16, 16, CONFIG), whole)
    assert torch.equal(render_clip_batch(SEEDS[2:3], [[9, 0]], 16, 16, CONFIG)[0], whole[2, [2, 0]])
    clips = SyntheticClips(3, CONFIG, 16, 16)
    batch = clips.read_batch([70, 2], [[1, 5], [8, 0]])
    assert torch.equal(clips[2].read([8, 0]), batch[1])
    assert torch.equal(SyntheticClips(3, CONFIG, 16, 16)[70].read([1, 5]), batch[0])


def test_other_seeds_are_other_worlds() -> None:
    images = render_clip_batch(SEEDS, [[0]] * 4, 16, 16, CONFIG)
    assert len({image.numpy().tobytes() for image in images}) == 4
    other = SyntheticClips(4, CONFIG, 16, 16)[0].read([0])
    assert not torch.equal(other, SyntheticClips(3, CONFIG, 16, 16)[0].read([0]))


def test_held_out_worlds_are_never_trained_on() -> None:
    training = {training_seed(seed, i) for seed in range(3) for i in range(1000)}
    held_out = {held_out_seed(seed, i) for seed in range(3) for i in range(1000)}
    assert len(training) == len(held_out) == 3000
    assert not training & held_out
    # All training seeds are even and all held-out ones odd, so this holds for every other pair too.
    assert all(seed % 2 == 0 for seed in training)
    assert all(seed % 2 == 1 for seed in held_out)


def test_families_are_drawn_as_weighted() -> None:
    worlds = sample_worlds(range(60), SyntheticConfig(families={"street": 2.0, "room": 1.0}))
    found = torch.bincount(worlds.family, minlength=len(FAMILIES))
    assert found.sum() == found[FAMILIES.index("street")] + found[FAMILIES.index("room")]
    assert 28 <= found[FAMILIES.index("street")] <= 52  # 40 expected; three standard deviations are 11


@pytest.mark.parametrize("kind", PATHS)
def test_paths_keep_away_from_surfaces_and_have_the_field_of_view(kind: str) -> None:
    config = SyntheticConfig(paths={kind: 1.0}, frames=12, field_of_view=(50.0, 70.0))
    worlds = sample_worlds(range(100, 112), config)
    cameras = sample_paths(worlds, config=config)
    field = 2 * torch.rad2deg(torch.atan(0.5 / cameras.intrinsics[..., 0, 0]))
    assert field.min() >= 50
    assert field.max() <= 70
    assert torch.equal(cameras.intrinsics[:, :1].expand_as(cameras.intrinsics), cameras.intrinsics)
    distance = free_distance(worlds, cameras.centers)
    assert (distance > 0.99 * worlds.clearance[:, None]).float().mean() > 0.95  # next to standing still else
    moved = (cameras.centers[:, -1] - cameras.centers[:, 0]).norm(dim=-1)
    assert moved.min() > 0


def test_narrow_views_keep_their_range_and_are_narrower() -> None:
    medians = []
    for power in (1.0, 2.0):
        config = SyntheticConfig(frames=2, narrow_views=power)
        cameras = sample_paths(sample_worlds(range(300), config), config=config)
        field = 2 * torch.rad2deg(torch.atan(0.5 / cameras.intrinsics[:, 0, 0, 0]))
        assert field.min() >= 40
        assert field.max() <= 90
        medians.append(field.median().item())
    # 65 and 52.5 expected; three standard deviations of the medians of 300 are 4 and 4.
    assert 61 < medians[0] < 69
    assert 48.5 < medians[1] < 56.5


def test_longer_side_keeps_its_field_of_view() -> None:
    cameras = sample_paths(sample_worlds([1]), frames=1)
    wide, square = fit_aspect(cameras, 60, 80).intrinsics, cameras.intrinsics
    assert float(wide[0, 0, 0, 0]) == pytest.approx(float(square[0, 0, 0, 0]))
    pixels = wide[0, 0, 0, 0] * 80, wide[0, 0, 1, 1] * 60
    assert float(pixels[0]) == pytest.approx(float(pixels[1]))  # square pixels


def test_photos_become_textures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, colour in (("a.png", (255, 0, 255)), ("b.jpg", (0, 255, 0))):
        grain = rng.integers(-20, 20, (40, 60, 1))
        save_image(tmp_path / name, np.clip(np.array(colour) + grain, 0, 255).astype(np.uint8))
    config = SyntheticConfig(frames=4, photos=str(tmp_path), photo_fraction=1.0)
    plain = render_clip_batch(SEEDS, [[0]] * 4, 32, 32, SyntheticConfig(frames=4)).float()
    images = render_clip_batch(SEEDS, [[0]] * 4, 32, 32, config).float()
    assert not torch.equal(images, plain)
    # Photos are magenta or green: red and blue go together, as they do in nothing else.
    apart = (images[:, :, 0] - images[:, :, 2]).abs().mean()
    assert apart < 0.5 * (plain[:, :, 0] - plain[:, :, 2]).abs().mean()
    with pytest.raises(ValueError, match="expected photos"):
        render_clip_batch([1], [[0]], 8, 8, SyntheticConfig(photos=str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"families": {"moon": 1.0}}, "families"),
        ({"paths": {"dolly": 0.0}}, "paths"),
        ({"field_of_view": (90.0, 40.0)}, "field_of_view"),
        ({"narrow_views": 0.0}, "narrow_views"),
        ({"baseline": (1.0, 0.5)}, "baseline"),
        ({"frames": 1}, "frames"),
        ({"moving": 1.5}, "moving"),
        ({"noise": -0.1}, "noise"),
        ({"supersampling": 9}, "supersampling"),
    ],
)
def test_impossible_worlds_are_named(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SyntheticConfig(**options)


def test_baseline_is_relative_to_the_depth_in_view() -> None:
    """Paths are as long as asked for, relative to the harmonic mean depth of what is seen."""
    config = SyntheticConfig(paths={"dolly": 1.0, "strafe": 1.0}, frames=9, baseline=(0.3, 0.3), shake=0.0)
    ratios = []
    for i in range(16):
        scene = SyntheticScenes(9, config, 16)[i]
        views = scene.read([4], 24, 24)
        assert views.depth is not None
        seen = views.depth[views.depth > 0]
        centers = scene.path.centers[0]
        ratios.append(float((centers[-1] - centers[0]).norm() / (len(seen) / (1 / seen).sum())))
    # The length is asked of the path's direction, to which sidesteps and sway add; blocked paths are shorter.
    assert 0.2 < float(np.median(ratios)) < 0.45
    assert math.isfinite(max(ratios))
