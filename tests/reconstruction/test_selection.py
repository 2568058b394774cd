"""Motion between thumbnails, and the choice of views by it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas3r.reconstruction.motion import SIZE, Motion, measure_motion, sharpness, thumbnail
from nas3r.reconstruction.selection import select


def thumbnails(world, places, **options):
    return [thumbnail(world.frame(place, **options)) for place in places]


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (0, -4), (-5, 5)])
def test_a_shifted_picture_moved_by_that_shift_and_has_no_parallax(world, shift):
    first = thumbnail(world.frame(0))
    motion = measure_motion(first, np.roll(first, shift, (0, 1)))
    # Blocks at the rolled border match nothing; half a pixel is the uncertainty of the parabola.
    assert motion.shift == pytest.approx(np.hypot(*shift) / SIZE, abs=0.5 / SIZE)
    assert motion.parallax < 0.3 / SIZE
    assert motion.overlap > 0.6


def test_parallax_is_what_the_near_square_adds(world):
    flat, deep = (measure_motion(*thumbnails(world, [0, 10], parallax=parallax)) for parallax in (1.0, 1.8))
    assert flat.overlap > 0.8
    assert deep.path > flat.path


def test_unrelated_pictures_do_not_overlap(world, other_world):
    motion = measure_motion(thumbnail(world.frame(0)), thumbnail(other_world.frame(0)))
    assert motion.overlap < 0.4
    assert motion.path > 0.2


def test_flat_pictures_are_no_trouble():
    flat = np.full((SIZE, SIZE), 0.5, np.float32)
    assert measure_motion(flat, flat) == Motion(0.0, 0.0, 1.0, 0.0)
    assert measure_motion(flat, flat + 0.2).overlap == 0.0


def test_brightness_is_not_motion(world):
    first, second = thumbnails(world, [0, 0])
    assert measure_motion(first, 0.8 * second).shift < 0.3 / SIZE


def test_sharpness_falls_with_blur_and_not_with_brightness(world):
    from PIL import Image, ImageFilter

    picture = world.frame(0)
    blurred = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(3)))
    assert sharpness(blurred) < 0.6 * sharpness(picture)
    assert sharpness((picture * 0.6).astype(np.uint8)) == pytest.approx(sharpness(picture), rel=0.1)


STEP = Motion(shift=0.02, parallax=0.01, overlap=0.9, difference=0.05)
STILL = Motion(shift=0.0, parallax=0.0, overlap=1.0, difference=0.0)
FAR = Motion(shift=0.3, parallax=0.1, overlap=0.1, difference=0.3)


def test_a_camera_that_rests_half_of_the_time_is_sampled_where_it_moves():
    motions = [STILL] * 20 + [STEP] * 20
    chosen = select(motions, np.ones(41), 5, 0)
    assert chosen.views[0] <= 20
    assert chosen.views[-1] == 40
    assert sum(view > 20 for view in chosen.views) == 4  # every n-th frame would take two


def test_blurred_frames_are_avoided():
    sharp = np.ones(21)
    sharp[[0, 10, 20]] = 0.2
    assert not {0, 10, 20} & set(select([STEP] * 20, sharp, 3, 0).views)


def test_a_long_way_is_cut_to_a_stretch():
    chosen = select([STEP] * 200, np.ones(201), 4, 0)
    assert chosen.cut
    assert chosen.views[-1] - chosen.views[0] < 60


def test_an_unordered_collection_is_not_cut():
    chosen = select([FAR] * 29, np.ones(30), 6, 2)
    assert not chosen.cut
    assert chosen.views[0] < 5
    assert chosen.views[-1] > 24


def test_few_candidates_are_all_taken():
    assert select([STEP] * 3, np.ones(4), 8, 2).views == [0, 1, 2, 3]


@settings(max_examples=100, deadline=None)
@given(
    paths=st.lists(st.sampled_from([STEP, STILL, FAR]), min_size=1, max_size=60),
    count=st.integers(2, 12),
    held_out=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_choices_are_always_distinct_ascending_and_inside(paths, count, held_out, seed):
    sharp = np.random.default_rng(seed).uniform(0.1, 1, len(paths) + 1)
    chosen = select(paths, sharp, count, held_out)
    assert len(chosen.views) == min(count, len(sharp))
    assert chosen.views == sorted(set(chosen.views))
    assert len(chosen.held_out) <= held_out
    assert not set(chosen.held_out) & set(chosen.views)
    assert all(chosen.views[0] < i < chosen.views[-1] for i in chosen.held_out)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="one motion less than candidates"):
        select([STEP], np.ones(5), 3, 0)
