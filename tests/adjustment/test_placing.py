"""Points placed from observations some of which are wrong."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from made_scene import make_scene

from nas3r.adjustment import State, Tracks, place_points
from nas3r.adjustment.bundle import residuals

FAR, ANGLE = 4.0, 1.0


def damaged(tracks: Tracks, seed: int, share: float) -> tuple[Tracks, np.ndarray]:
    random = np.random.default_rng(seed)
    wrong = random.random(len(tracks.view)) < share
    xy = tracks.xy + wrong[:, None] * random.uniform(30, 200, tracks.xy.shape)
    return replace(tracks, xy=xy), wrong


def most_agreeing(state: State, tracks: Tracks, point: int) -> int:
    """How many observations of a point agree at best, from every pair of them: the slow twin."""
    mine = np.arange(tracks.first[point], tracks.first[point + 1])
    best = 0
    for a, b in combinations(mine.tolist(), 2):
        rows = []
        for o in (a, b):
            view = tracks.view[o]
            x, y = (tracks.xy[o] - state.lenses.center[view]) / state.lenses.focal[0]
            pose = np.c_[state.rotations[view], state.translations[view]]
            rows += [x * pose[2] - pose[0], y * pose[2] - pose[1]]
        *_, vt = np.linalg.svd(np.array(rows))
        place = vt[-1, :3] / vt[-1, 3]
        one = Tracks(np.array([0, len(mine)]), tracks.view[mine], tracks.xy[mine], mine)
        best = max(best, int((residuals(replace(state, points=place[None]), one) < FAR).sum()))
    return best


@pytest.mark.parametrize("seed", range(3))
def test_what_agrees_is_what_every_pair_of_rays_finds(seed: int) -> None:
    scene = make_scene(seed, views=6, points=60, noise=0.3)
    tracks, wrong = damaged(scene.tracks, seed, 0.2)
    everything = np.ones(len(tracks.view), bool)
    found = place_points(scene.state, tracks, everything, FAR, ANGLE)
    counts = np.diff(found.tracks.first)
    for point in np.flatnonzero(found.number >= 0).tolist():
        # One fewer: a point moves a little when it is refined, and the last observation may fall out.
        assert counts[found.number[point]] >= most_agreeing(scene.state, tracks, point) - 1
    right = np.bincount(tracks.point[~wrong], minlength=60) >= 3
    assert (found.number[right] >= 0).all()


def test_points_are_where_they_are_and_wrong_observations_go() -> None:
    scene = make_scene(1, views=8, points=100)
    tracks, wrong = damaged(scene.tracks, 1, 0.1)
    found = place_points(scene.state, tracks, np.ones(len(wrong), bool), FAR, ANGLE)
    sure = np.bincount(tracks.point[~wrong], minlength=100) >= 3
    assert sure.sum() > 80
    number = found.number[sure]
    assert (number >= 0).all()
    # Exact observations: what is left is what keeps nearly parallel rays solvable, a billionth of the rest.
    assert np.abs(found.state.points[number] - scene.state.points[sure]).max() < 1e-5


def test_views_without_a_place_are_not_used() -> None:
    scene = make_scene(2, views=6, points=50)
    usable = scene.tracks.view < 3
    found = place_points(scene.state, scene.tracks, usable, FAR, ANGLE)
    assert set(found.tracks.view.tolist()) == {0, 1, 2}
    few = np.bincount(scene.tracks.point[usable], minlength=50) < 2
    assert (found.number[few] == -1).all()


def test_rays_that_hardly_differ_place_nothing() -> None:
    scene = make_scene(3, views=2, points=50)
    usable = np.ones(len(scene.tracks.view), bool)
    assert place_points(scene.state, scene.tracks, usable, FAR, 60.0).tracks.num_points == 0
