import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scene import FOCAL, SIZE, angle_between, make_scene, relative, rotation, shaken

from nas3r.adjustment.bundle import Lenses, Options, Prior, State, adjust, residuals, uncertainty
from nas3r.adjustment.normal_equations import point_steps, reduced_equations
from nas3r.adjustment.tracks import Tracks

UNKNOWN = Prior.around(np.array([FOCAL]), np.inf)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_exact_cameras_stay_where_they_are(seed: int) -> None:
    scene = make_scene(seed)
    after = adjust(scene.state, scene.tracks, UNKNOWN, Options())
    # A cost of zero cannot get lower: only the rounding of projecting remains, 1e-13 of some 500 pixels.
    np.testing.assert_allclose(after.rotations, scene.state.rotations, atol=1e-9)
    np.testing.assert_allclose(after.centers, scene.state.centers, atol=1e-8)
    assert after.lenses.focal[0] == pytest.approx(FOCAL, rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_true_cameras_are_found_again_from_near_ones(seed: int) -> None:
    scene = make_scene(seed)
    start = shaken(scene.state, seed, 0.02)
    after = adjust(start, scene.tracks, UNKNOWN, Options(scale=100.0, steps=60))
    turns, centers = relative(after)
    true_turns, true_centers = relative(scene.state)
    # What converges stops at a relative gain of 1e-7, far below a thousandth of a pixel: 2e-6 radians.
    assert residuals(after, scene.tracks).max() < 1e-2
    assert angle_between(turns, true_turns).max() < 1e-4
    np.testing.assert_allclose(centers, true_centers, atol=1e-4)
    assert after.lenses.focal[0] == pytest.approx(FOCAL, rel=1e-4)


def test_distortion_is_found_only_where_it_may_be() -> None:
    scene = make_scene(3, distortion=0.1)
    start = shaken(scene.state, 3, 0.005)
    bent = adjust(
        start,
        scene.tracks,
        Prior.around(np.array([FOCAL]), np.inf, 10.0),
        Options(scale=100.0, steps=60),
    )
    straight = adjust(start, scene.tracks, UNKNOWN, Options(scale=100.0, steps=60))
    # The prior of width 10 draws by less than that; the focal length is free, and takes a little of it along.
    assert bent.lenses.distortion[0] == pytest.approx(0.1, abs=3e-4)
    assert straight.lenses.distortion[0] == 0
    assert residuals(straight, scene.tracks).mean() > 10 * residuals(bent, scene.tracks).mean()


def test_two_lenses_are_told_apart() -> None:
    scene = make_scene(4, lenses=2)
    prior = Prior.around(np.full(2, FOCAL), np.inf)
    after = adjust(shaken(scene.state, 4, 0.01), scene.tracks, prior, Options(scale=100.0, steps=80))
    np.testing.assert_allclose(after.lenses.focal, [FOCAL, 1.2 * FOCAL], rtol=1e-4)


def test_a_prior_holds_a_focal_length_that_two_views_do_not_say() -> None:
    scene = make_scene(5, views=2, points=40, noise=1.0)
    start = shaken(scene.state, 5, 0.002)
    narrow = adjust(start, scene.tracks, Prior.around(np.array([FOCAL]), 1e-3), Options())
    assert narrow.lenses.focal[0] == pytest.approx(FOCAL, rel=1e-2)
    fixed = adjust(start, scene.tracks, UNKNOWN, Options(fixed_focal=True))
    assert fixed.lenses.focal[0] == start.lenses.focal[0]


def test_outliers_hardly_count() -> None:
    scene = make_scene(6, noise=0.2)
    xy = scene.tracks.xy.copy()
    random = np.random.default_rng(6)
    wrong = random.random(len(xy)) < 0.1
    xy[wrong] += random.normal(size=(wrong.sum(), 2)) * 40
    tracks = Tracks(scene.tracks.first, scene.tracks.view, xy, scene.tracks.keypoint)

    def off(seen: Tracks, scales: tuple[float, ...]) -> float:
        state = shaken(scene.state, 6, 0.003)
        for scale in scales:
            state = adjust(state, seen, UNKNOWN, Options(scale=scale, steps=60))
        return angle_between(relative(state)[0], relative(scene.state)[0]).max()

    robust, plain = (8.0, 2.0, 0.5), (1e4,)
    # A tenth of the observations is lost, and each has spoilt a point that good ones see.
    assert off(tracks, robust) < 3 * off(scene.tracks, robust)
    assert off(tracks, plain) > 10 * off(tracks, robust)


def test_frame_unit_and_order_of_views_do_not_matter() -> None:
    scene = make_scene(7, noise=0.3)
    start = shaken(scene.state, 7, 0.005)
    options = Options(scale=1.0, steps=80)
    plain = adjust(start, scene.tracks, UNKNOWN, options)
    turn, shift, scale = rotation(np.array([0.4, -0.8, 0.3])), np.array([3.0, -2.0, 5.0]), 7.0
    moved = State(
        start.rotations @ turn.T,
        scale * start.translations - start.rotations @ turn.T @ shift,
        start.lenses,
        scale * start.points @ turn.T + shift,
    )
    other = adjust(moved, scene.tracks, UNKNOWN, options)
    # Both stop where a step gains less than 1e-7 of the cost: a few hundredths of a standard deviation.
    for one, two in zip(relative(plain), relative(other), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5)
    order = np.array([0, 3, 1, 5, 2, 4])
    place = np.argsort(order)
    lenses = Lenses(start.lenses.of_view, start.lenses.focal, start.lenses.distortion, start.lenses.center)
    shuffled = State(start.rotations[order], start.translations[order], lenses, start.points)
    tracks = Tracks(scene.tracks.first, place[scene.tracks.view], scene.tracks.xy, scene.tracks.keypoint)
    again = adjust(shuffled, tracks, UNKNOWN, options)
    np.testing.assert_allclose(again.rotations[place], plain.rotations, atol=2e-5)


def test_uncertainty_is_that_of_the_noise() -> None:
    """Normalised errors of many noisy copies are near one."""
    errors, pixels = [], []
    prior = UNKNOWN
    for seed in range(30):
        scene = make_scene(100, noise=0.0)
        random = np.random.default_rng(seed)
        xy = scene.tracks.xy + 0.5 * random.normal(size=scene.tracks.xy.shape)
        tracks = Tracks(scene.tracks.first, scene.tracks.view, xy, scene.tracks.keypoint)
        options = Options(scale=100.0, steps=30)
        after = adjust(scene.state, tracks, prior, options)
        doubt = uncertainty(after, tracks, prior, options)
        errors.append(np.log(after.lenses.focal[0] / FOCAL) / doubt.focal[0])
        pixels.append(doubt.pixels)
    # Of 30 normal numbers the root mean square is within 1 +- 0.26 (two standard deviations).
    assert 0.7 < np.sqrt(np.mean(np.square(errors))) < 1.3
    assert np.mean(pixels) == pytest.approx(0.5, rel=0.1)


def test_centres_and_turns_scatter_as_uncertainty_says() -> None:
    turns, centers = [], []
    for seed in range(25):
        scene = make_scene(101)
        random = np.random.default_rng(seed)
        xy = scene.tracks.xy + 0.5 * random.normal(size=scene.tracks.xy.shape)
        tracks = Tracks(scene.tracks.first, scene.tracks.view, xy, scene.tracks.keypoint)
        options = Options(scale=100.0, steps=30)
        after = adjust(scene.state, tracks, UNKNOWN, options)
        doubt = uncertainty(after, tracks, UNKNOWN, options)
        off = angle_between(after.rotations, scene.state.rotations)
        away = np.linalg.norm(after.centers - scene.state.centers, axis=1)
        turns.append((off / np.maximum(doubt.rotation, 1e-12))[1:])
        centers.append((away / np.maximum(doubt.center, 1e-12))[1:])
    # Lengths of vectors of up to three normal parts, by the longest axis: between one and the root of three.
    assert 0.7 < np.sqrt(np.mean(np.square(turns))) < 1.9
    assert 0.7 < np.sqrt(np.mean(np.square(centers))) < 1.9


def test_the_reduced_equations_are_those_of_the_whole_problem() -> None:
    """The readable twin: all parameters in one dense matrix."""
    random = np.random.default_rng(8)
    counts = np.array([2, 3, 5, 2])
    first = np.concatenate([[0], np.cumsum(counts)])
    m, size, width = first[-1], 9, 4
    place = np.array([random.choice(size + 1, width, replace=False) for _ in range(m)])  # `size` is nothing
    by_camera, by_point = random.normal(size=(m, 2, width)), random.normal(size=(m, 2, 3))
    residual, weight = random.normal(size=(m, 2)), random.random(m)
    jacobian = np.zeros((m, 2, size + 1 + 3 * len(counts)))
    point = np.repeat(np.arange(len(counts)), counts)
    for o in range(m):
        jacobian[o][:, place[o]] += by_camera[o]
        jacobian[o][:, size + 1 + 3 * point[o] + np.arange(3)] += by_point[o]
    flat = np.sqrt(weight)[:, None, None] * jacobian
    whole = np.einsum("mrp,mrq->pq", flat, flat)
    side = -np.einsum("mrp,mr->p", flat, np.sqrt(weight)[:, None] * residual)
    keep = np.r_[0:size, size + 1 : len(whole)]
    whole, side = whole[np.ix_(keep, keep)], side[keep]
    a, b, c = whole[:size, :size], whole[:size, size:], whole[size:, size:]
    matrix, reduced, inverse, own = reduced_equations(
        first, place, by_camera, by_point, residual, weight, 0.0, size
    )
    # Blocks of two observations are nearly singular: 1e-12 on their diagonal, by condition numbers of 1e3.
    np.testing.assert_allclose(matrix, a - b @ np.linalg.solve(c, b.T), atol=1e-7)
    np.testing.assert_allclose(reduced, side[:size] - b @ np.linalg.solve(c, side[size:]), atol=1e-7)
    step = random.normal(size=size)
    points = point_steps(first, place, by_camera, by_point, weight, inverse, own, step)
    np.testing.assert_allclose(points.ravel(), np.linalg.solve(c, side[size:] - b.T @ step), atol=1e-7)


def test_ceres_finds_the_same_cameras() -> None:
    pycolmap = pytest.importorskip("pycolmap")
    scene = make_scene(9, noise=0.4)
    start = shaken(scene.state, 9, 0.003)
    ours = adjust(start, scene.tracks, UNKNOWN, Options(scale=1e3, steps=100))
    model = _as_colmap(pycolmap, start, scene.tracks)
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_extra_params = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.TRIVIAL
    options.ceres.solver_options.function_tolerance = 1e-12
    pycolmap.bundle_adjustment(model, options)
    theirs = np.array([model.image(v + 1).cam_from_world().matrix() for v in range(len(start.rotations))])
    lens = Lenses(
        start.lenses.of_view, np.array([model.camera(1).focal_length]), np.zeros(1), start.lenses.center
    )
    other = State(theirs[:, :, :3], theirs[:, :, 3], lens, start.points)
    # Both minimise the same squares: what differs is where they stop, 1e-7 of the cost for ours.
    assert other.lenses.focal[0] == pytest.approx(ours.lenses.focal[0], rel=2e-4)
    assert angle_between(relative(ours)[0], relative(other)[0]).max() < 2e-4
    np.testing.assert_allclose(relative(ours)[1], relative(other)[1], atol=5e-4)


def _as_colmap(pycolmap, state: State, tracks: Tracks):
    model = pycolmap.Reconstruction()
    width, height = SIZE
    params = [state.lenses.focal[0], *state.lenses.center[0]]
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(model="SIMPLE_PINHOLE", width=width, height=height, params=params, camera_id=1)
    )
    index = {}
    for v in range(len(state.rotations)):
        seen = np.flatnonzero(tracks.view == v)
        for k, o in enumerate(seen):
            index[o] = k
        image = pycolmap.Image(
            image_id=v + 1, name=f"{v}.png", camera_id=1, keypoints=tracks.xy[seen].astype(np.float64)
        )
        pose = pycolmap.Rigid3d(np.concatenate([state.rotations[v], state.translations[v][:, None]], 1))
        model.add_image_with_trivial_frame(image, pose)
    for p, xyz in enumerate(state.points):
        track = pycolmap.Track()
        for o in range(tracks.first[p], tracks.first[p + 1]):
            track.add_element(int(tracks.view[o]) + 1, index[o])
        model.add_point3D(xyz, track, np.zeros(3, np.uint8))
    return model
