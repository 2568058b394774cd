"""Known cameras, read from what other tools write, beside the photos that they are of."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nas3r
from nas3r import ReconstructOptions
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.io.cameras import write_cameras
from nas3r.io.colmap import SparsePoints, write_colmap
from nas3r.io.nerfstudio import write_transforms
from nas3r.io.photo_camera import PhotoCamera

HEIGHT, WIDTH = 192, 256
FRAMES = (0, 4, 8, 12, 16)


@dataclass(frozen=True)
class Shoot:
    folder: Path
    cameras: list[PhotoCamera]


@pytest.fixture(scope="module")
def shoot(tmp_path_factory: pytest.TempPathFactory) -> Shoot:
    folder = tmp_path_factory.mktemp("shoot")
    config = SyntheticConfig(frames=24, rotation=(5.0, 25.0), baseline=(0.6, 1.0))
    views = SyntheticScenes(3, config, length=4)[1].read(FRAMES, HEIGHT, WIDTH)
    (folder / "images").mkdir()
    cameras = []
    # A world of its own, in metres, say.
    world = np.eye(4)
    world[:3, 3] = (3.0, -2.0, 7.0)
    matrices = views.cameras.pixel_intrinsics(WIDTH, HEIGHT)[0].double().numpy()
    poses = views.cameras.world_from_camera[0].double().numpy()
    for i, image in enumerate(views.images):
        name = f"images/{i}.png"
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / name)
        pose = world @ poses[i]
        pose[:3, 3] *= 2.0
        cameras.append(PhotoCamera(name, WIDTH, HEIGHT, matrices[i], pose))
    return Shoot(folder, cameras)


def write(kind: str, folder: Path, cameras: list[PhotoCamera]) -> Path:
    if kind == "cameras.json":
        write_cameras(folder / kind, cameras)
        return folder / kind
    if kind == "transforms.json":
        write_transforms(folder / kind, cameras)
        return folder / kind
    none = np.zeros(0, int)
    points = SparsePoints(
        np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0), none, none, np.zeros((0, 2))
    )
    write_colmap(folder / "sparse" / "0", cameras, points)
    return folder / "sparse" / "0"


def options(path: Path, **more: object) -> ReconstructOptions:
    return ReconstructOptions(cameras=path, held_out=0, refine_steps=2, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["cameras.json", "transforms.json", "colmap"])
def test_known_cameras_stay_in_their_unit(shoot: Shoot, kind: str) -> None:
    path = write(kind, shoot.folder, shoot.cameras)
    found = nas3r.reconstruct(shoot.folder / "images", options(path))
    assert len(found.views) == len(FRAMES)
    first = np.linalg.inv(shoot.cameras[0].world_from_camera)
    for camera, true in zip(found.photo_cameras, shoot.cameras, strict=True):
        # float32 poses, and seven digits in text files.
        assert np.abs(camera.world_from_camera - first @ true.world_from_camera).max() < 1e-4
        assert np.abs(camera.intrinsics - true.intrinsics).max() < 1e-2
    assert found.sparse is not None
    assert len(found.sparse.positions) > 30


@pytest.mark.slow
def test_photos_without_a_camera_are_left_out_or_tied_in(shoot: Shoot, tmp_path: Path) -> None:
    path = write("cameras.json", tmp_path, shoot.cameras[:4])
    found = nas3r.reconstruct(shoot.folder / "images", options(path))
    assert [view.label for view in found.views] == ["0.png", "1.png", "2.png", "3.png"]
    assert any("4.png" in note and "no camera that is told" in note for note in found.record.notes)
    tied = nas3r.reconstruct(shoot.folder / "images", options(path, cameras_prior=True))
    assert len(tied.views) == len(FRAMES)
    true = np.linalg.inv(shoot.cameras[0].world_from_camera) @ shoot.cameras[4].world_from_camera
    off = tied.photo_cameras[4].world_from_camera[:3, 3] - true[:3, 3]
    assert np.linalg.norm(off) < 0.05 * np.linalg.norm(true[:3, 3])


def test_what_cannot_be_used_is_said(shoot: Shoot, tmp_path: Path) -> None:
    images = shoot.folder / "images"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        nas3r.reconstruct(images, options(tmp_path / "nowhere"))
    renamed = [
        PhotoCamera(f"x{i}.png", WIDTH, HEIGHT, c.intrinsics, c.world_from_camera)
        for i, c in enumerate(shoot.cameras)
    ]
    with pytest.raises(ValueError, match=r"at least two of the 5 photos, such as 0\.png"):
        nas3r.reconstruct(images, options(write("cameras.json", tmp_path, renamed)))
    path = write("transforms.json", shoot.folder, shoot.cameras)
    with pytest.raises(ValueError, match="quality standard or best"):
        nas3r.reconstruct(images, options(path, quality="draft"))
    with pytest.raises(ValueError, match="--cameras"):
        nas3r.reconstruct(images, ReconstructOptions(cameras_prior=True))
    document = json.loads(path.read_text())
    document["k1"] = 0.2
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="image_undistorter"):
        nas3r.reconstruct(images, options(path))


def test_cameras_of_another_place_are_refused(shoot: Shoot, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    wrong = []
    for camera in shoot.cameras:
        turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn * np.sign(np.linalg.det(turn)), random.normal(size=3)
        wrong.append(PhotoCamera(camera.file, WIDTH, HEIGHT, camera.intrinsics, pose))
    with pytest.raises(ValueError, match="known cameras do not fit the pictures"):
        nas3r.reconstruct(shoot.folder / "images", options(write("cameras.json", tmp_path, wrong)))
