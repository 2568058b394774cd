"""Scenes that grow from a few views, on made points: no pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nas3r.adjustment import BendConfig, Keypoints, Lenses, Prior, State, Tracks
from nas3r.evaluation.pose import pose_errors
from nas3r.geometry import align_cameras
from nas3r.scenes.growing import Grown, Growth, GrowthConfig
from nas3r.scenes.merging import merged

FOCAL, SIZE = 600.0, (640, 480)


def orbit(
    views: int, seed: int, noise: float = 0.3, reach: float = 0.8, bend: float = 0.0, radius: float = 4.0
) -> tuple[State, Tracks]:
    """Cameras that go once around a cloud of points, each seen by those on its side of it."""
    random = np.random.default_rng(seed)
    cloud = random.normal(size=(1500, 3)) * (1.0, 0.4, 1.0)
    cloud /= np.maximum(np.linalg.norm(cloud * (1, 0, 1), axis=1, keepdims=True), 0.3)
    rotations, translations = [], []
    for angle in np.linspace(0, 2 * np.pi, views, endpoint=False):
        center = radius * np.array([np.sin(angle), 0.1 * np.sin(3 * angle), -np.cos(angle)])
        forward = -center / np.linalg.norm(center)
        right = np.cross([0.0, 1.0, 0.0], forward)
        right /= np.linalg.norm(right)
        turn = np.stack([right, np.cross(forward, right), forward])
        rotations.append(turn)
        translations.append(-turn @ center)
    lenses = Lenses(
        np.zeros(views, int), np.array([FOCAL]), np.array([bend]), np.tile(np.array(SIZE) / 2, (views, 1))
    )
    state = State(np.array(rotations), np.array(translations), lenses, cloud)
    toward = state.centers / np.linalg.norm(state.centers, axis=1, keepdims=True)
    flat = cloud / np.linalg.norm(cloud, axis=1, keepdims=True)
    seen = flat @ toward.T > reach
    point, view = np.nonzero(seen)
    local = np.einsum("mij,mj->mi", state.rotations[view], cloud[point]) + state.translations[view]
    xy = lenses.project(local, view) + noise * random.normal(size=(len(view), 2))
    first = np.concatenate([[0], np.cumsum(seen.sum(1))])
    return state, Tracks(first, view, xy, point)


def growth(state: State, tracks: Tracks) -> Growth:
    keypoints = [
        Keypoints(np.zeros((1500, 2)), np.zeros((1500, 128), np.float32), np.ones(1500))
        for _ in state.rotations
    ]
    prior = Prior.around(state.lenses.focal.copy(), np.inf)
    return Growth(tracks, keypoints, prior, 1.0, GrowthConfig())


def begun(state: State, views: list[int]) -> Grown:
    placed = np.zeros(len(state.rotations), bool)
    placed[views] = True
    rotations, translations = np.tile(np.eye(3), (len(placed), 1, 1)), np.zeros((len(placed), 3))
    rotations[placed], translations[placed] = state.rotations[placed], state.translations[placed]
    return Grown(State(rotations, translations, state.lenses, np.zeros((0, 3))), placed)


def poses(state: State) -> torch.Tensor:
    out = np.tile(np.eye(4), (len(state.rotations), 1, 1))
    out[:, :3, :3] = state.rotations.transpose(0, 2, 1)
    out[:, :3, 3] = state.centers
    return torch.from_numpy(out)


@pytest.mark.parametrize("seed", range(2))
def test_an_orbit_ends_where_it_began(seed: int) -> None:
    """Below half a degree and a percent where the loop closes, for points seen to 0.3 of 640 pixels."""
    state, tracks = orbit(60, seed)
    one = growth(state, tracks)
    grown = one.settled(one.grow(begun(state, [0, 1, 2, 3, 4, 5, 6, 7])))
    assert grown.placed.all()
    found, true = poses(grown.state), poses(state)
    errors = pose_errors(found, true, pairs=[(0, 59), (0, 30), (1, 58)])
    assert float(errors.rotation.max()) < 0.5
    off = align_cameras(found, true).poses(found)[:, :3, 3] - true[:, :3, 3]
    assert float(off.norm(dim=1).max()) < 0.01 * 8  # of the orbit's diameter


@pytest.mark.parametrize(("bend", "says"), [(0.0, 0.0), (-0.2, -0.2)])
def test_a_lens_that_bends_straight_lines_is_found_in_the_end(bend: float, says: float) -> None:
    state, tracks = orbit(24, 3, bend=bend, radius=2.0, reach=0.6)
    straight = replace(state, lenses=replace(state.lenses, distortion=np.zeros(1)))
    one = growth(straight, tracks)
    settled = one.settled(one.grow(begun(straight, [0, 1, 2, 3, 4, 5])))
    _, found = one.bent(settled, BendConfig())
    # Points are seen to 0.3 pixels, at up to 250 from the axis, some thousand times.
    assert found.state.lenses.distortion[0] == pytest.approx(says, abs=5e-3)
    if bend:
        assert off_centre(found.state, state) < 0.1 * off_centre(settled.state, state)


def off_centre(found: State, true: State) -> float:
    centers = poses(true)[:, :3, 3]
    return float(
        (align_cameras(poses(found), poses(true)).poses(poses(found))[:, :3, 3] - centers).norm(dim=1).max()
    )


def test_views_that_nothing_ties_in_get_no_place() -> None:
    state, tracks = orbit(16, 0, reach=0.6)
    blind = tracks.keep(tracks.view != 7)[0]
    one = growth(state, blind)
    grown = one.grow(begun(state, [0, 1, 2, 3]))
    assert np.flatnonzero(~grown.placed).tolist() == [7]


def test_a_view_whose_points_are_wrong_gets_no_place() -> None:
    state, tracks = orbit(16, 0, reach=0.6)
    random = np.random.default_rng(0)
    wrong = tracks.view == 9
    xy = np.where(wrong[:, None], random.uniform((0, 0), SIZE, tracks.xy.shape), tracks.xy)
    one = growth(state, replace(tracks, xy=xy))
    assert not one.grow(begun(state, [0, 1, 2, 3])).placed[9]


def test_parts_that_share_points_become_one() -> None:
    state, tracks = orbit(24, 1, reach=0.6)
    one = growth(state, tracks)
    first = begun(state, [0, 1, 2, 3, 4, 5])
    other = begun(state, [6, 7, 8, 9, 10, 11])
    # The second part has a frame and a unit of its own.
    turn = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    moved = replace(
        other.state,
        rotations=np.where(
            other.placed[:, None, None], other.state.rotations @ turn.T, other.state.rotations
        ),
        translations=2.5 * other.state.translations,
    )
    both = merged(one, first, replace(other, state=moved))
    assert both is not None
    assert both.placed.sum() == 12
    errors = pose_errors(poses(both.state)[:12], poses(state)[:12])
    assert float(errors.maximum.max()) < 0.5  # points seen to 0.3 pixels, by six views


def test_parts_without_points_in_common_stay_apart() -> None:
    state, tracks = orbit(24, 1, reach=0.9)
    one = growth(state, tracks)
    assert merged(one, begun(state, [0, 1, 2, 3]), begun(state, [12, 13, 14, 15])) is None
