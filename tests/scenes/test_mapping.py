"""Pictures of generated worlds, whose cameras are known, tied together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas3r.adjustment import AdjustmentConfig, NotAdjustableError
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.evaluation.pose import pose_errors
from nas3r.geometry import Cameras, se3_exp
from nas3r.scenes import MapConfig, map_scene

HEIGHT, WIDTH = 240, 320
FRAMES = tuple(range(0, 24, 2))


@dataclass(frozen=True)
class Clip:
    """A world, and a model that says its cameras a few degrees and percent off."""

    images: list[np.ndarray]
    cameras: Cameras
    depth: torch.Tensor

    def coarse(self, views: np.ndarray) -> tuple[Cameras, torch.Tensor]:
        noise = torch.randn(1, len(views), 6, generator=torch.Generator().manual_seed(0))
        noise *= torch.tensor([0.04] * 3 + [0.02] * 3)
        intrinsics = self.cameras.intrinsics[:, views].clone()
        intrinsics[..., [0, 1], [0, 1]] *= 1.05
        poses = self.cameras.world_from_camera[:, views] @ se3_exp(noise)
        depth = F.interpolate(self.depth[views][None], size=(48, 64), mode="nearest")[0]
        return Cameras(poses, intrinsics), depth

    def off(self, cameras: Cameras, views: Sequence[int]) -> float:
        true = self.cameras.world_from_camera[0, list(views)]
        return float(pose_errors(cameras.world_from_camera[0], true).maximum.median())


def world(number: int) -> Clip:
    config = SyntheticConfig(frames=24, rotation=(5.0, 25.0), baseline=(0.6, 1.0))
    views = SyntheticScenes(3, config, length=4)[number].read(FRAMES, HEIGHT, WIDTH)
    assert views.depth is not None
    images = (views.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return Clip(list(images), views.cameras, views.depth)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return world(1)


CONFIG = MapConfig(keypoints=(1500, 1500), seed=5)


def test_all_pictures_get_a_place(clip: Clip) -> None:
    scene = map_scene(clip.images, clip.coarse, config=CONFIG)
    assert [len(part.views) for part in scene.parts] == [len(FRAMES)]
    assert not scene.left_out
    part = scene.parts[0]
    assert torch.equal(part.cameras.world_from_camera[0, 0], torch.eye(4))
    # Neighbours are a twentieth of the distance apart, and points are placed to a third of a pixel of 320.
    assert clip.off(part.cameras, part.views.tolist()) < 0.5
    focal = part.cameras.intrinsics[0, 0, 0, 0] / clip.cameras.intrinsics[0, 0, 0, 0]
    assert abs(float(focal) - 1) < 0.02


@pytest.mark.slow
def test_the_order_of_pictures_does_not_matter(clip: Clip) -> None:
    order = np.random.default_rng(0).permutation(len(FRAMES))
    mixed = Clip([clip.images[i] for i in order], clip.cameras.views(order.tolist()), clip.depth[order])
    scene = map_scene(mixed.images, mixed.coarse, config=CONFIG)
    assert len(scene.parts[0].views) == len(FRAMES)
    assert mixed.off(scene.parts[0].cameras, range(len(FRAMES))) < 0.5


def test_what_nothing_ties_in_is_left_out_with_the_reason(clip: Clip) -> None:
    random = np.random.default_rng(0)
    other = np.kron(random.integers(0, 255, (15, 20, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    blank = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    images = [*clip.images[:6], other, *clip.images[6:], blank]

    def coarse(views: np.ndarray) -> tuple[Cameras, torch.Tensor]:
        return clip.coarse(views - (views > 6))

    scene = map_scene(images, coarse, config=CONFIG)
    assert scene.left_out == dict.fromkeys((6, 13), "shows nothing that another picture shows")
    assert scene.parts[0].views.tolist() == [*range(6), *range(7, 13)]
    assert clip.off(scene.parts[0].cameras, range(len(FRAMES))) < 0.5


@pytest.mark.slow
def test_two_worlds_are_two_parts(clip: Clip) -> None:
    other, half = world(2), len(FRAMES) // 2

    def coarse(views: np.ndarray) -> tuple[Cameras, torch.Tensor]:
        own, count = (clip, 0) if views.max() < len(FRAMES) else (other, len(FRAMES))
        return own.coarse(views - count)

    images = [*clip.images, *other.images[:half]]
    scene = map_scene(images, coarse, config=CONFIG)
    assert [part.views.tolist() for part in scene.parts] == [
        list(range(len(FRAMES))),
        list(range(len(FRAMES), len(images))),
    ]


def test_a_camera_that_only_turns_is_refused(clip: Clip) -> None:
    """Crops of one picture: whatever a model says, nothing shows depth."""
    wide = clip.images[0]
    crops = [np.ascontiguousarray(wide[:, 5 * i : 5 * i + 256]) for i in range(len(FRAMES))]

    def coarse(views: np.ndarray) -> tuple[Cameras, torch.Tensor]:
        cameras, depth = clip.coarse(views)
        intrinsics = cameras.intrinsics.clone()
        intrinsics[..., 0, 0] *= WIDTH / 256
        return Cameras(cameras.world_from_camera, intrinsics), depth

    with pytest.raises(NotAdjustableError):
        map_scene(crops, coarse, config=CONFIG)


def test_pictures_of_another_camera_get_a_focal_length_of_their_own(clip: Clip) -> None:
    """The middle of every third picture, enlarged: a lens 1.6 times as long, of which nothing is told."""
    images, longer = list(clip.images), [2, 5, 8, 11]
    for view in longer:
        middle = clip.images[view][HEIGHT * 3 // 16 : HEIGHT * 13 // 16, WIDTH * 3 // 16 : WIDTH * 13 // 16]
        images[view] = cv2.resize(middle, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    lens = np.isin(np.arange(len(images)), longer).astype(int)
    told = np.array([float(clip.cameras.intrinsics[0, 0, 0, 0]) * WIDTH, np.nan])
    spread = AdjustmentConfig(focal_spread=(0.03, 0.3))
    config = replace(CONFIG, adjustment=spread)
    scene = map_scene(images, clip.coarse, lens_of_view=lens, told_focal=told, config=config)
    part = scene.parts[0]
    assert len(part.views) == len(images)
    assert clip.off(part.cameras, part.views.tolist()) < 0.5
    focal = (part.cameras.intrinsics[0, :, 0, 0] / clip.cameras.intrinsics[0, :, 0, 0]).numpy()
    # What both have in common is as well known as what is told, and their ratio better.
    np.testing.assert_allclose(focal, np.where(lens, 1.6, 1.0), rtol=0.06)
    np.testing.assert_allclose(focal / focal[0], np.where(lens, 1.6, 1.0), rtol=0.01)
