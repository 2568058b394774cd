"""Curriculum, view sampling and view dropout."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas3r.data.sampling import (
    GapSchedule,
    MotionSchedule,
    ViewDropout,
    ViewSampler,
    ending_at,
    random_generator,
)

PUBLISHED = {
    "random": GapSchedule((10, 10), (25, 90), 200_000),
    "pretrained": GapSchedule((25, 25), (45, 150), 200_000),
}


def test_published_schedule(reference_folder: Path) -> None:
    values = json.loads((reference_folder / "modules" / "schedule_and_tags.json").read_text())
    for key, expected in values["schedule_min_max_gap"].items():
        name, step = key.split("@")
        assert list(PUBLISHED[name].bounds(int(step))) == expected, key


def test_schedule_without_warm_up_begins_at_its_end() -> None:
    assert GapSchedule((2, 4), (5, 9), 0).bounds(0) == (5, 9)


@pytest.mark.parametrize(
    ("start", "end", "warm_up"),
    [((0, 4), (4, 4), 10), ((5, 4), (5, 9), 10), ((5, 8), (4, 9), 10), ((2, 4), (4, 8), -1)],
)
def test_schedules_that_make_no_sense(start: tuple, end: tuple, warm_up: int) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        GapSchedule(start, end, warm_up)


lengths = st.integers(1, 60)
steps = st.integers(0, 300)


@given(lengths, steps, st.integers(0, 100), st.integers(2, 5), st.integers(1, 4))
def test_targets_lie_between_and_are_no_context(
    length: int, step: int, seed: int, context_views: int, target_views: int
) -> None:
    schedule = GapSchedule((3, 5), (8, 20), 200)
    sampler = ViewSampler(schedule, context_views, target_views)
    sample = sampler.sample(length, step, random_generator(seed))
    low, high = schedule.bounds(step)
    if sample is None:
        assert length - 1 < max(low, sampler.least_gap)
        return
    left, *extra, right = sample.context
    assert 0 <= left < right < length
    assert max(low, sampler.least_gap) <= sample.gap <= max(high, sampler.least_gap)
    views = [*sample.context, *sample.target]
    assert len(set(views)) == len(views) == context_views + target_views
    assert all(left < view < right for view in (*extra, *sample.target))
    assert sample == sampler.sample(length, step, random_generator(seed))


def test_gaps_and_places_are_uniform() -> None:
    sampler = ViewSampler(GapSchedule((4, 6), (4, 6), 0))
    rng = random_generator(0)
    samples = [sampler.sample(20, 0, rng) for _ in range(6000)]
    gaps = np.array([sample.gap for sample in samples if sample])
    assert set(gaps) == {4, 5, 6}
    # 6000 draws: 2000 of each gap, standard deviation 37
    np.testing.assert_allclose(np.bincount(gaps)[4:], 2000, atol=4 * 37)
    first = [sample.context[0] for sample in samples if sample and sample.gap == 5]
    assert set(first) == set(range(15))


def test_published_targets_may_repeat_and_equal_a_context_frame() -> None:
    sampler = ViewSampler(
        GapSchedule((3, 3), (3, 3), 0), context_views=3, target_views=3, targets="published"
    )
    rng = random_generator(0)
    samples = [sampler.sample(9, 0, rng) for _ in range(300)]
    relative = [[t - s.context[0] for t in s.target] for s in samples if s]
    assert {t for targets in relative for t in targets} == {0, 1, 2, 3}
    assert any(len(set(targets)) < 3 for targets in relative)
    assert all(s.context[0] < s.context[1] < s.context[2] for s in samples if s)


def test_extra_contexts_are_not_sorted() -> None:
    sampler = ViewSampler(GapSchedule((10, 10), (10, 10), 0), context_views=4)
    middles = [s.context[1:3] for s in (sampler.sample(11, 0, random_generator(i)) for i in range(50)) if s]
    assert any(a > b for a, b in middles)
    assert any(a < b for a, b in middles)


def test_short_clips_are_refused() -> None:
    sampler = ViewSampler(GapSchedule((10, 20), (10, 20), 0))
    assert sampler.sample(10, 0, random_generator(0)) is None
    sample = sampler.sample(11, 0, random_generator(0))
    assert sample is not None
    assert sample.context == (0, 10)


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=40), st.integers(0, 100))
def test_motion_schedule_spans_the_motion_asked_for(moves: list[float], seed: int) -> None:
    travel = np.concatenate([[0.0], np.cumsum(moves)])
    schedule = MotionSchedule((0.1, 0.2), (0.3, 0.8), 100)
    low, high = schedule.bounds(50)
    assert (low, high) == pytest.approx((0.2, 0.5))
    sample = ViewSampler(schedule).sample(len(travel), 50, random_generator(seed), travel)
    if sample is None:
        assert travel[-1] <= high + 1e-12
        return
    left, right = sample.context
    assert travel[right] - travel[left] >= low - 1e-12
    if right - left > 2:  # the frame before was still too near
        assert travel[right - 1] - travel[left] < high + 1e-12


def test_motion_schedule_needs_the_travel() -> None:
    with pytest.raises(ValueError, match="travel"):
        ViewSampler(MotionSchedule((0.1, 0.2), (0.3, 0.8), 100)).sample(9, 0, random_generator(0))


def test_sampler_refuses_too_few_views() -> None:
    with pytest.raises(ValueError, match="2 context views"):
        ViewSampler(GapSchedule((1, 2), (1, 2), 0), context_views=1)


@given(st.integers(2, 9), st.integers(1, 5), st.integers(0, 5), st.integers(0, 400_000))
def test_dropout_keeps_the_outer_contexts_and_one_target(vc: int, vt: int, seed: int, step: int) -> None:
    dropout = ViewDropout()
    context, target = dropout.kept(vc, vt, seed, step)
    assert context[0] == 0
    assert context[-1] == vc - 1
    assert list(context) == sorted(set(context))
    assert 1 <= len(target) <= vt
    assert list(target) == sorted(set(target))
    assert (context, target) == dropout.kept(vc, vt, seed, step)


def test_dropout_reaches_every_count_and_can_be_off() -> None:
    kept = [ViewDropout().kept(6, 3, 0, step) for step in range(500)]
    counts = np.bincount([len(context) for context, _ in kept])
    assert counts[:2].sum() == 0
    # k ~ U{0..4} of 500: 100 each, standard deviation 9
    np.testing.assert_allclose(counts[2:], 100, atol=36)
    assert {len(target) for _, target in kept} == {1, 2, 3}
    assert ViewDropout(context=False, target=False).kept(6, 3, 0, 0) == (tuple(range(6)), (0, 1, 2))


def test_another_end_keeps_the_rest_of_the_curriculum() -> None:
    schedule = GapSchedule((2, 6), (6, 40), 100)
    assert ending_at(schedule) is schedule
    assert ending_at(schedule, gap=(1, 50)) == GapSchedule((1, 6), (1, 50), 100)
    motion = ending_at(schedule, motion=(0.3, 0.8))
    assert isinstance(motion, MotionSchedule)
    assert motion.start == pytest.approx((0.1, 0.12))
    assert (motion.end, motion.warm_up) == ((0.3, 0.8), 100)
    with pytest.raises(ValueError, match="not both"):
        ending_at(schedule, gap=(1, 2), motion=(0.1, 0.2))
