"""Circles of pairs that contradict each other."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch

from nas3r.adjustment import Keypoints, Lenses, join_tracks
from nas3r.evaluation.pose import pose_errors
from nas3r.geometry import Cameras, relative_to_first
from nas3r.scenes import ComparedPictures, map_scene
from nas3r.scenes.circles import contradicting, contradictions
from nas3r.scenes.view_graph import build_graph

WIDTH, HEIGHT = 640, 480


def turn(vector: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.asarray(cv2.Rodrigues(np.asarray(vector, float))[0])


@pytest.mark.parametrize("seed", range(5))
def test_wrong_pairs_are_found_among_right_ones(seed: int) -> None:
    """A ring of thirty views, each tied to three before it; every eighth pair is wrong."""
    random = np.random.default_rng(seed)
    true = np.stack([turn([0, 2 * np.pi * i / 30, 0]) @ turn(random.normal(0, 0.1, 3)) for i in range(30)])
    views = np.array([(i, (i + step) % 30) for i in range(30) for step in (1, 2, 3)])
    noise = np.stack([turn(random.normal(0, np.radians(2), 3)) for _ in views])
    rotations = noise @ true[views[:, 1]] @ true[views[:, 0]].transpose(0, 2, 1)
    wrong = random.permutation(len(views))[: len(views) // 8]
    for pair in wrong:
        rotations[pair] = turn(random.normal(0, 1, 3)) @ rotations[pair]
    off = contradictions(30, views, rotations[:, None], np.ones(len(views)))
    turned = np.array(
        [np.degrees(np.linalg.norm(cv2.Rodrigues(r)[0])) for r in _errors(rotations, true, views)]
    )
    np.testing.assert_allclose(off, turned, atol=8)


def _errors(rotations: np.ndarray, true: np.ndarray, views: np.ndarray) -> np.ndarray:
    return true[views[:, 1]].transpose(0, 2, 1) @ rotations @ true[views[:, 0]]


def test_what_is_in_no_circle_contradicts_nothing() -> None:
    views = np.array([(0, 1), (1, 2), (2, 3)])
    rotations = np.stack([turn([0, angle, 0]) for angle in (0.1, 2.0, -1.0)])
    np.testing.assert_allclose(contradictions(5, views, rotations[:, None], np.ones(3)), 0, atol=1e-6)


@pytest.fixture(scope="module")
def room() -> tuple[list[Keypoints], np.ndarray]:
    """24 views from the middle of a round room, 15 degrees apart; two doors, opposite, that look the same."""
    random = np.random.default_rng(0)
    walls, door = random.uniform(0, 2 * np.pi, 2400), random.uniform(-0.3, 0.3, 120)
    angle = np.concatenate([walls, door, door + np.pi])
    depth = 5 + random.normal(0, 0.5, len(angle))
    high = random.uniform(-1.8, 1.8, len(angle))
    depth[-120:], high[-120:] = depth[-240:-120], high[-240:-120]
    looks = random.normal(0, 1, (len(angle), 128))
    looks[-120:] = looks[-240:-120]
    looks = np.abs(looks) / np.linalg.norm(looks, axis=1, keepdims=True)
    points = np.stack([depth * np.sin(angle), high, depth * np.cos(angle)], 1)
    keypoints = []
    headings = 2 * np.pi * np.arange(24) / 24
    for heading in headings:
        center = 1.5 * np.array([np.sin(heading), 0, np.cos(heading)])
        local = (points - center) @ turn([0, heading, 0])
        xy = 500 * local[:, :2] / np.maximum(local[:, 2:], 1e-6) + (WIDTH / 2, HEIGHT / 2)
        seen = np.flatnonzero((local[:, 2] > 0) & ((xy > 0) & (xy < (WIDTH, HEIGHT))).all(1))
        noise = random.normal(0, 0.3, (len(seen), 2))
        keypoints.append(Keypoints(xy[seen] + noise, looks[seen].astype(np.float32), np.full(len(seen), 3.0)))
    return keypoints, headings


def test_two_doors_that_look_the_same_are_told_apart(room: tuple[list[Keypoints], np.ndarray]) -> None:
    keypoints, headings = room
    everything = [(i, j) for i in range(24) for j in range(i + 1, 24)]
    pairs = build_graph(keypoints, everything, WIDTH).pairs
    tracks = join_tracks([k.xy for k in keypoints], pairs)
    center = np.tile([WIDTH / 2, HEIGHT / 2], (24, 1))
    lenses = Lenses(np.zeros(24, int), np.array([500.0]), np.zeros(1), center)
    angle = np.array([np.degrees(headings[j] - headings[i]) for i, j in (pair.views for pair in pairs)])
    false = np.minimum(angle, 360 - angle) > 120
    assert false.sum() > 5
    assert contradicting(pairs, keypoints, tracks, lenses, 1.0).tolist() == false.tolist()


@pytest.mark.slow
def test_the_room_becomes_a_whole_circle(room: tuple[list[Keypoints], np.ndarray]) -> None:
    """With pairs of doors in it, its other half would be laid upon the first one; and the circle closes."""
    keypoints, headings = room
    poses = torch.eye(4).repeat(24, 1, 1)
    for i, heading in enumerate(headings):
        poses[i, :3, :3] = torch.from_numpy(turn([0, heading, 0]))
        poses[i, :3, 3] = 1.5 * torch.tensor([np.sin(heading), 0, np.cos(heading)])
    matrix = torch.tensor([[500 / WIDTH, 0, 0.5], [0, 500 / HEIGHT, 0.5], [0, 0, 1]])

    def coarse(views: np.ndarray) -> tuple[Cameras, torch.Tensor]:
        own = relative_to_first(poses[views].double())
        return Cameras(own[None].float(), matrix.repeat(1, len(views), 1, 1)), torch.full(
            (len(views), 6, 8), 3.5
        )

    images = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 24
    everything = [(i, j) for i in range(24) for j in range(i + 1, 24)]
    compared = ComparedPictures(keypoints, build_graph(keypoints, everything, WIDTH))
    scene = map_scene(images, coarse, compared=compared)
    (part,) = scene.parts
    assert scene.contradicting > 5
    errors = pose_errors(part.cameras.world_from_camera[0].double(), poses.double())
    # Points are seen to a third of a pixel of 500: a fold or a gap would be off by many degrees.
    assert float(errors.rotation.max()) < 0.2
    assert float(errors.translation.max()) < 2.0
