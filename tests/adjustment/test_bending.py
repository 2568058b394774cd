"""Which lenses bend straight lines, on made points."""

import numpy as np
import pytest
from made_scene import FOCAL, make_scene, shaken

from nas3r.adjustment import BendConfig, Options, Prior, adjust, agreement, bending, uncertainty
from nas3r.adjustment.bundle import State
from nas3r.adjustment.tracks import Tracks
from nas3r.adjustment.triangulation import unbent

CONFIG = BendConfig()
FREE = Prior.around(np.array([FOCAL]), np.inf, CONFIG.spread)


def adjusted(tracks: Tracks, state: State, seed: int, prior: Prior = FREE) -> State:
    return adjust(shaken(state, seed, 0.003), tracks, prior, Options(scale=2.0, steps=60))


@pytest.mark.parametrize("seed", range(4))
def test_a_straight_lens_is_not_said_to_bend(seed: int) -> None:
    scene = make_scene(seed, noise=0.5)
    state = adjusted(scene.tracks, scene.state, seed)
    doubt = uncertainty(state, scene.tracks, FREE, Options(scale=2.0))
    assert not bending(state, scene.tracks, doubt, 1.0, CONFIG).any()


@pytest.mark.parametrize("bend", [-0.2, -0.1, 0.1])
def test_a_bent_lens_is_and_explains_more(bend: float) -> None:
    scene = make_scene(7, noise=0.2, distortion=bend)
    state = adjusted(scene.tracks, scene.state, 7)
    doubt = uncertainty(state, scene.tracks, FREE, Options(scale=2.0))
    assert bending(state, scene.tracks, doubt, 1.0, CONFIG).all()
    assert abs(state.lenses.distortion[0] - bend) < 5 * doubt.distortion[0]
    straight = adjusted(scene.tracks, scene.state, 7, Prior.around(np.array([FOCAL]), np.inf))
    less = agreement(straight, scene.tracks, 1.0)
    assert agreement(state, scene.tracks, 1.0) > CONFIG.better * less


def test_what_moves_nothing_by_a_pixel_is_let_be() -> None:
    scene = make_scene(9, noise=0.02, distortion=0.004)
    state = adjusted(scene.tracks, scene.state, 9)
    doubt = uncertainty(state, scene.tracks, FREE, Options(scale=2.0))
    assert state.lenses.distortion[0] > CONFIG.sure * doubt.distortion[0]
    assert not bending(state, scene.tracks, doubt, 1.0, CONFIG).any()
    assert bending(state, scene.tracks, doubt, 0.1, CONFIG).all()  # of images a tenth as large


@pytest.mark.parametrize("bend", [-0.25, -0.1, 0.0, 0.2])
def test_what_a_lens_bends_is_unbent(bend: float) -> None:
    flat = np.random.default_rng(1).uniform(-0.75, 0.75, (200, 2))
    bent = flat * (1 + bend * np.square(flat).sum(1))[:, None]
    np.testing.assert_allclose(unbent(bent, np.full(200, bend)), flat, atol=1e-9)
