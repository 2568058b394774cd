"""Which pictures are compared."""

import numpy as np

from nas3r.adjustment import Keypoints
from nas3r.scenes.retrieval import candidate_pairs, describe


def keypoints(random: np.random.Generator, words: np.ndarray, count: int = 200) -> Keypoints:
    looks = words[random.integers(0, len(words), count)] + 0.02 * random.normal(size=(count, 128))
    looks = np.abs(looks) / np.linalg.norm(looks, axis=1, keepdims=True)
    return Keypoints(random.uniform(0, 100, (count, 2)), looks.astype(np.float32), np.ones(count))


def test_pictures_of_one_place_look_alike() -> None:
    random = np.random.default_rng(0)
    places = [np.abs(random.normal(size=(60, 128))) for _ in range(4)]
    pictures = [keypoints(random, places[i % 4]) for i in range(16)]
    similarity = (d := describe(pictures)) @ d.T
    same = np.arange(16)[:, None] % 4 == np.arange(16) % 4
    assert similarity[same].min() > similarity[~same].max()
    pairs = candidate_pairs(d, alike=3)
    assert {(i, j) for i in range(16) for j in range(i + 1, 16) if same[i, j]} <= set(pairs)


def test_pairs_grow_with_the_number_of_pictures_and_not_with_its_square() -> None:
    random = np.random.default_rng(1)
    words = np.abs(random.normal(size=(40, 128)))
    counts = []
    for pictures in (50, 100):
        pairs = candidate_pairs(describe([keypoints(random, words, 60) for _ in range(pictures)]))
        assert all(i < j for i, j in pairs)
        counts.append(len(pairs))
    assert counts[1] < 2.3 * counts[0]


def test_pictures_without_keypoints_are_compared_with_their_neighbours_alone() -> None:
    empty = Keypoints(np.zeros((0, 2)), np.zeros((0, 128), np.float32), np.zeros(0))
    assert not describe([empty, empty]).any()
    assert (0, 1) in candidate_pairs(describe([empty] * 3))
