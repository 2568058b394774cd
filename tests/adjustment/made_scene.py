"""Points in front of cameras on an arc, and where they are seen."""

from dataclasses import dataclass

import numpy as np

from nas3r.adjustment.bundle import Lenses, State, project_points
from nas3r.adjustment.tracks import Tracks

FOCAL = 500.0
SIZE = (640, 480)


@dataclass(frozen=True)
class MadeScene:
    state: State
    tracks: Tracks


def rotation(turn: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(turn)
    if angle == 0:
        return np.eye(3)
    x, y, z = turn / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def make_scene(
    seed: int, views: int = 6, points: int = 200, noise: float = 0.0, distortion: float = 0.0, lenses: int = 1
) -> MadeScene:
    """Views on an arc that look at a cloud of points; each point is seen by two to all of them."""
    random = np.random.default_rng(seed)
    cloud = random.uniform((-1.5, -1, 3), (1.5, 1, 6), (points, 3))
    rotations, translations = [], []
    for angle in np.linspace(0, 0.5, views):
        turn = rotation(np.array([0.02 * np.sin(7 * angle), -angle, 0.1 * angle]))
        center = (
            np.array([0, 0, 4.5])
            - turn.T @ np.array([0, 0, 4.5])
            + 0.05 * random.normal(size=3) * (angle > 0)
        )
        rotations.append(turn)
        translations.append(-turn @ center)
    of_view = np.arange(views) % lenses
    lens = Lenses(
        of_view,
        FOCAL * (1 + 0.2 * np.arange(lenses)),
        np.full(lenses, distortion),
        np.tile(np.array(SIZE) / 2, (views, 1)),
    )
    state = State(np.array(rotations), np.array(translations), lens, cloud)
    seen = random.random((points, views)) < 0.7
    seen[:, :2] |= seen.sum(1, keepdims=True) < 2
    point, view = np.nonzero(seen)
    first = np.concatenate([[0], np.cumsum(seen.sum(1))])
    blank = Tracks(first, view, np.zeros((len(view), 2)), point)
    xy, _ = project_points(state, blank)
    return MadeScene(state, Tracks(first, view, xy + noise * random.normal(size=xy.shape), point))


def shaken(state: State, seed: int, amount: float) -> State:
    """A state away from the true one; the first camera stays."""
    random = np.random.default_rng(seed)
    rotations, translations = state.rotations.copy(), state.translations.copy()
    for v in range(1, len(rotations)):
        rotations[v] = rotation(amount * random.normal(size=3)) @ rotations[v]
        translations[v] += amount * random.normal(size=3)
    focal = state.lenses.focal * np.exp(amount * random.normal(size=len(state.lenses.focal)))
    lenses = Lenses(state.lenses.of_view, focal, np.zeros_like(focal), state.lenses.center)
    return State(
        rotations, translations, lenses, state.points + amount * random.normal(size=state.points.shape)
    )


def relative(state: State) -> tuple[np.ndarray, np.ndarray]:
    """Rotations from the first view's frame, and centres in it in units of the farthest."""
    turns = state.rotations @ state.rotations[0].T
    centers = (state.centers - state.centers[0]) @ state.rotations[0].T
    return turns, centers / np.linalg.norm(centers, axis=1).max()


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles in radians between rotations."""
    trace = np.einsum("vij,vij->v", a, b)
    return np.arccos(np.clip((trace - 1) / 2, -1, 1))
