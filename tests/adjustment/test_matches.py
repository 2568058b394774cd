import numpy as np
import pytest

from nas3r.adjustment.guided import Expected, Reach, match_guided
from nas3r.adjustment.keypoints import Keypoints
from nas3r.adjustment.tracks import PairMatches, join_tracks


def _keypoints(random: np.random.Generator, count: int) -> Keypoints:
    looks = np.abs(random.normal(size=(count, 128))).astype(np.float32)
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    return Keypoints(random.uniform(0, 100, (count, 2)), looks, np.ones(count))


@pytest.mark.parametrize("seed", range(5))
def test_guided_matches_are_those_of_the_whole_matrix(seed: int) -> None:
    """The readable twin: every pair at once."""
    random = np.random.default_rng(seed)
    first, second = _keypoints(random, 60), _keypoints(random, 50)
    for i in range(30):  # some that look alike, near each other
        looks = first.descriptors[i] + 0.02 * np.abs(random.normal(size=128)).astype(np.float32)
        second.descriptors[i] = looks / np.linalg.norm(looks)
        second.xy[i] = first.xy[i] + random.normal(size=2)
    normals = random.normal(size=(60, 2))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    through = (normals * first.xy).sum(1)
    expected = Expected(first.xy + 2, np.concatenate([normals, -through[:, None]], 1))
    back = np.where(random.random((50, 1)) < 0.2, np.nan, second.xy - 2)
    reach = Reach(place=20.0, line=3.0, ratio=0.9)
    found = match_guided(first, second, expected, back, reach)

    near = np.linalg.norm(expected.xy[:, None] - second.xy[None], axis=2) < reach.place
    near |= np.linalg.norm(back[None] - first.xy[:, None], axis=2) < reach.place
    off = np.abs(np.einsum("ni,mi->nm", normals, second.xy) - through[:, None])
    alike = np.where(near & (off <= reach.line), first.descriptors @ second.descriptors.T, -1.0)
    ranked = np.sort(alike, axis=1)
    want = [
        (i, j)
        for i in range(60)
        if alike[i, (j := int(alike[i].argmax()))] > -1
        and 1 - ranked[i, -1] < reach.ratio**2 * (1 - ranked[i, -2])
        and alike[:, j].argmax() == i
    ]
    assert len(want) > 15
    assert found.tolist() == [list(pair) for pair in want]


def test_matches_that_share_keypoints_become_one_track() -> None:
    places = [np.arange(10.0).reshape(5, 2) + v for v in range(3)]
    pairs = [PairMatches((0, 1), np.array([[0, 1], [2, 2]])), PairMatches((1, 2), np.array([[1, 4]]))]
    tracks = join_tracks(places, pairs)
    seen = [
        sorted(zip(tracks.view[a:b].tolist(), tracks.keypoint[a:b].tolist(), strict=True))
        for a, b in zip(tracks.first[:-1], tracks.first[1:], strict=True)
    ]
    assert sorted(seen) == [[(0, 0), (1, 1), (2, 4)], [(0, 2), (1, 2)]]
    for view, keypoint, xy in zip(tracks.view, tracks.keypoint, tracks.xy, strict=True):
        np.testing.assert_array_equal(xy, places[view][keypoint])


def test_a_track_that_comes_twice_into_a_view_is_not_believed() -> None:
    places = [np.zeros((3, 2))] * 3
    pairs = [
        PairMatches((0, 1), np.array([[0, 0], [1, 1]])),
        PairMatches((1, 2), np.array([[0, 0]])),
        PairMatches((0, 2), np.array([[2, 0]])),  # view 0 again, by another keypoint
    ]
    tracks = join_tracks(places, pairs)
    assert tracks.num_points == 1
    assert sorted(zip(tracks.view.tolist(), tracks.keypoint.tolist(), strict=True)) == [(0, 1), (1, 1)]


def test_points_of_which_one_observation_is_left_go() -> None:
    places = [np.zeros((3, 2))] * 3
    pairs = [PairMatches((0, 1), np.array([[0, 0], [1, 1]])), PairMatches((1, 2), np.array([[0, 0]]))]
    tracks = join_tracks(places, pairs)
    fewer, stays = tracks.keep(tracks.view != 0)
    assert stays.sum() == 1
    assert fewer.view.tolist() == [1, 2]
    assert fewer.first.tolist() == [0, 2]
