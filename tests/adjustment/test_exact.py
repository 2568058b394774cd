"""The whole stage on generated worlds, whose cameras are known."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas3r.adjustment import AdjustmentConfig, BendConfig, ExactCameras, NotAdjustableError, exact_cameras
from nas3r.adjustment.triangulation import unbent
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.evaluation.pose import pose_errors
from nas3r.geometry import Cameras, se3_exp

HEIGHT, WIDTH = 240, 320
FRAMES = (0, 5, 10, 15, 20)


@dataclass(frozen=True)
class Clip:
    images: list[np.ndarray]
    cameras: Cameras
    depth: torch.Tensor


@pytest.fixture(scope="module")
def clip() -> Clip:
    config = SyntheticConfig(frames=24, rotation=(5.0, 25.0), baseline=(0.6, 1.0))
    views = SyntheticScenes(3, config, length=4)[1].read(FRAMES, HEIGHT, WIDTH)
    assert views.depth is not None
    images = (views.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return Clip(list(images), views.cameras, views.depth)


def coarse(clip: Clip, seed: int, turn: float = 0.03, shift: float = 0.05, zoom: float = 1.06) -> Cameras:
    """Cameras a few degrees and percent off, the first in its place."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, len(FRAMES), 6, generator=generator)
    noise *= torch.tensor([shift] * 3 + [turn] * 3)
    noise[:, 0] = 0
    intrinsics = clip.cameras.intrinsics.clone()
    intrinsics[..., [0, 1], [0, 1]] *= zoom
    return Cameras(clip.cameras.world_from_camera @ se3_exp(noise), intrinsics)


def small(depth: torch.Tensor) -> torch.Tensor:
    return F.interpolate(depth[None], size=(48, 64), mode="nearest")[0]


def off(cameras: Cameras, clip: Clip) -> float:
    errors = pose_errors(cameras.world_from_camera[0], clip.cameras.world_from_camera[0])
    return float(errors.maximum.max())


def focal_off(exact: ExactCameras, clip: Clip) -> float:
    return abs(float(exact.cameras.intrinsics[0, 0, 0, 0] / clip.cameras.intrinsics[0, 0, 0, 0]) - 1)


def test_coarse_cameras_become_exact(clip: Clip) -> None:
    start = coarse(clip, 0)
    exact = exact_cameras(clip.images, start, small(clip.depth))
    assert exact.tied.all()
    assert off(start, clip) > 3
    # Directions of the shortest baselines, a tenth of the distance, to points placed to a third of a pixel.
    assert off(exact.cameras, clip) < 1.0
    assert focal_off(exact, clip) < 0.02
    assert torch.equal(exact.cameras.world_from_camera[0, 0], torch.eye(4))
    # The error is what the stage itself expects: within three of its standard deviations.
    assert focal_off(exact, clip) < 3 * exact.uncertainty.focal[0] + 1e-3


@pytest.mark.parametrize("bend", [-0.12, 0.12])
def test_a_lens_that_bends_straight_lines_is_found(clip: Clip, bend: float) -> None:
    bent, focal = through_lens(clip, bend)
    start = coarse(clip, 0)
    start.intrinsics[..., [0, 1], [0, 1]] *= focal
    exact = exact_cameras(bent, start, small(clip.depth))
    straight = AdjustmentConfig(bend=BendConfig(spread=0.0))
    without = exact_cameras(bent, start, small(clip.depth), config=straight)
    # Of five small pictures, whose cameras are found to within a degree without any bend.
    assert exact.distortion[0] == pytest.approx(bend, abs=0.04)
    assert off(exact.cameras, clip) < 1.2
    assert off(exact.cameras, clip) < 0.7 * off(without.cameras, clip)
    assert exact_cameras(clip.images, coarse(clip, 0), small(clip.depth)).distortion[0] == 0


def through_lens(clip: Clip, bend: float) -> tuple[list[np.ndarray], float]:
    """The images as a lens that bends straight lines takes them, zoomed in until there are no holes."""
    f = float(clip.cameras.intrinsics[0, 0, 0, 0]) * WIDTH
    center = np.array([WIDTH, HEIGHT]) / 2
    xy = np.stack(np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5), -1).reshape(-1, 2)
    at, zoom = xy, 1.0
    for zoom in np.arange(1.0, 2.0, 0.01).tolist():
        at = f * unbent((xy - center) / (f * zoom), np.full(len(xy), bend)) + center
        if (at >= 0).all() and (at <= 2 * center).all():
            break
    x, y = (at - 0.5).astype(np.float32).reshape(HEIGHT, WIDTH, 2).transpose(2, 0, 1)
    return [cv2.remap(image, x, y, cv2.INTER_CUBIC) for image in clip.images], zoom


def test_points_lie_on_the_surfaces(clip: Clip) -> None:
    exact = exact_cameras(clip.images, coarse(clip, 1), small(clip.depth))
    tracks = exact.sparse.tracks
    first = np.flatnonzero(tracks.view == 0)
    at = tracks.xy[first].astype(int)
    true = clip.depth[0].numpy()[at[:, 1], at[:, 0]]
    found = exact.sparse.points[tracks.point[first], 2]
    ratio = found / true
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.02  # up to the unit, which nothing says


def test_cameras_from_which_nothing_agrees_are_found_without_them(clip: Clip) -> None:
    start = coarse(clip, 2, turn=0.8, shift=1.0, zoom=1.1)
    exact = exact_cameras(clip.images, start, small(clip.depth))
    assert off(exact.cameras, clip) < 1.0


def test_a_view_that_shows_something_else_is_named_and_costs_the_others_nothing(clip: Clip) -> None:
    random = np.random.default_rng(0)
    images = list(clip.images)
    images[2] = np.kron(random.integers(0, 255, (15, 20, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    exact = exact_cameras(images, coarse(clip, 3), small(clip.depth))
    assert exact.tied.tolist() == [True, True, False, True, True]
    others = [0, 1, 3, 4]
    errors = pose_errors(
        exact.cameras.world_from_camera[0, others], clip.cameras.world_from_camera[0, others]
    )
    assert float(errors.maximum.max()) < 1.0


def test_pictures_without_anything_in_common_are_refused(clip: Clip) -> None:
    blank = [np.full((HEIGHT, WIDTH, 3), 128, np.uint8) for _ in FRAMES]
    with pytest.raises(NotAdjustableError, match="0 points in common"):
        exact_cameras(blank, coarse(clip, 0), small(clip.depth))


def test_a_camera_that_only_turns_is_refused(clip: Clip) -> None:
    """Crops of one picture: all rays of a point are parallel, whatever the coarse cameras say."""
    wide = clip.images[0]
    crops = [np.ascontiguousarray(wide[:, 12 * i : 12 * i + 256]) for i in range(len(FRAMES))]
    still = Cameras(torch.eye(4).expand(1, len(FRAMES), 4, 4), clip.cameras.intrinsics * 1.0)
    intrinsics = still.intrinsics.clone()
    intrinsics[..., 0, 0] *= WIDTH / 256
    with pytest.raises(NotAdjustableError):
        exact_cameras(crops, Cameras(still.world_from_camera, intrinsics), small(clip.depth))


def test_photos_are_found_among_the_points(clip: Clip) -> None:
    some = [0, 1, 3, 4]
    start = coarse(clip, 4)
    exact = exact_cameras(
        [clip.images[i] for i in some],
        start.views(some),
        small(clip.depth)[some],
        lens_of_view=np.zeros(4, int),
    )
    matrix = exact.cameras.pixel_intrinsics(WIDTH, HEIGHT)[0, 0].double().numpy()
    found = exact.sparse.landmarks.locate(clip.images[2], matrix)
    assert found is not None
    poses = torch.cat([exact.cameras.world_from_camera[0].double(), torch.from_numpy(found)[None]])
    errors = pose_errors(poses, clip.cameras.world_from_camera[0, [*some, 2]])
    # Of one photo by itself, whose baseline to its neighbours is a tenth of the distance.
    assert float(errors.maximum.max()) < 1.5
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    assert exact.sparse.landmarks.locate(noise, matrix) is None
