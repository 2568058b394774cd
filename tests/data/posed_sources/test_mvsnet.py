"""MVSNet's layout, ScanNet, and frames that are broken: known points fall where the data's numbers say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from miniatures import (
    MILLIMETRES,
    chunk_entry,
    world_views,
    write_blended,
    write_dtu,
    write_scannet,
)
from nas3r.data.posed import PosedViews
from nas3r.data.posed_sources import ImageScene, open_posed
from nas3r.geometry import project

HEIGHT, WIDTH = 48, 64


def known_points(
    depth: np.ndarray, extrinsic: np.ndarray, intrinsic: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """World points of some pixels, by the numbers of the files alone, and these pixels as (x, y)."""
    rows, columns = np.meshgrid(np.arange(12, HEIGHT, 9), np.arange(8, WIDTH, 9), indexing="ij")
    xy = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1)
    z = depth[rows.ravel(), columns.ravel()]
    rays = np.linalg.solve(intrinsic, np.concatenate([xy, np.ones((len(xy), 1))], 1).T)
    return np.linalg.solve(extrinsic[:3, :3], rays * z - extrinsic[:3, 3:]).T, xy


def check_points(
    read: PosedViews, points: np.ndarray, first: np.ndarray, seen: np.ndarray, view: int
) -> None:
    """The points, seen by the cameras as read, fall on their pixels of one view, where depth is theirs."""
    in_first = points @ first[:3, :3].T + first[:3, 3]  # readers move the world to the first camera
    cameras = read.cameras.views([view])
    xy, z = project(cameras, torch.tensor(in_first, dtype=torch.float32)[None])
    pixel = xy[0, 0].numpy() * [WIDTH, HEIGHT]
    np.testing.assert_allclose(pixel, seen, atol=0.02)  # of a pixel: nine digits, then float32
    assert read.depth is not None
    column, row = np.floor(seen).astype(int).T
    np.testing.assert_allclose(read.depth[view, row, column], z[0, 0].numpy(), rtol=1e-3)


def numbers_in(path: Path) -> tuple[np.ndarray, np.ndarray]:
    lines = path.read_text().splitlines()
    matrix = [np.array([line.split() for line in lines[a:b]], float) for a, b in ((1, 5), (7, 10))]
    return matrix[0], matrix[1]


def test_blended_mvs(tmp_path):
    write_blended(tmp_path / "5a3ca9cb270f0e3f14d0eddb", world_views(3, range(0, 12, 3), HEIGHT, WIDTH))
    scene = open_posed(tmp_path)[0]
    assert isinstance(scene, ImageScene)
    assert scene.numbers == (0, 1, 2, 3)  # the masked images are no views
    assert scene.pairs[1] == [0, 2, 3]
    read = scene.read(range(4), HEIGHT, WIDTH)
    cams = tmp_path / scene.name / "cams"
    first, _ = numbers_in(cams / "00000000_cam.txt")
    for view in range(4):
        extrinsic, intrinsic = numbers_in(cams / f"{view:08d}_cam.txt")
        raw = (tmp_path / scene.name / "rendered_depth_maps" / f"{view:08d}.pfm").read_bytes()
        depth = np.frombuffer(raw[-4 * HEIGHT * WIDTH :], "<f4").reshape(HEIGHT, WIDTH)[::-1]
        points, xy = known_points(depth, extrinsic, intrinsic)
        check_points(read, points, first, xy, view)
    photo = np.asarray(Image.open(tmp_path / scene.name / "blended_images" / "00000002.jpg"))
    np.testing.assert_array_equal((read.images[2] * 255).round().byte().permute(1, 2, 0), photo)


def test_a_mask_blanks_depth(tmp_path):
    write_blended(tmp_path, world_views(3, (0, 5), HEIGHT, WIDTH))
    (tmp_path / "masks").mkdir()
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, 10:20] = 1
    Image.fromarray(mask).save(tmp_path / "masks" / "00000001.png")
    depth = open_posed(tmp_path)[0].read([0, 1], HEIGHT, WIDTH).depth
    assert bool((depth[0] > 0).all())
    np.testing.assert_array_equal(depth[1] > 0, mask > 0)


NUMBERS = (23, 24, 31, 32, 33, 44)


def test_dtu_as_prepared_for_training(tmp_path):
    views = world_views(4, (0, 2, 5, 6, 8, 10), 64, 80)  # images of half the size: only the shape counts
    write_dtu(tmp_path, ("scan114_train", "scan8_train"), views, NUMBERS)
    source = open_posed(tmp_path)
    assert [source.scene_name(i) for i in range(len(source))] == ["scan8_train", "scan114_train"]
    scene = source[1]
    assert isinstance(scene, ImageScene)
    assert scene.numbers == NUMBERS
    assert scene.pairs[33] == [32, 31, 24, 23, 44]
    read = scene.read(range(6), 64, 80)
    first, _ = numbers_in(tmp_path / "Cameras" / "train" / "00000023_cam.txt")
    extrinsic, intrinsic = numbers_in(tmp_path / "Cameras" / "train" / "00000033_cam.txt")
    # A point on the ray of the camera file's pixel (100, 60), at the depth that the map has there.
    row, column = 30, 50  # of the images, which are half as wide and high as the camera file's
    z = MILLIMETRES * float(views.depth[4, row, column])
    ray = np.linalg.solve(intrinsic, [2 * (column + 0.5), 2 * (row + 0.5), 1.0])
    point = np.linalg.solve(extrinsic[:3, :3], ray * z - extrinsic[:3, 3])
    # Read in units of 200 mm, as published conversions have it.
    in_first = torch.tensor((first[:3, :3] @ point + first[:3, 3]) / 200, dtype=torch.float32)
    xy, depth = project(read.cameras.views([4]), in_first[None, None])
    np.testing.assert_allclose(xy[0, 0, 0] * torch.tensor([80.0, 64.0]), [column + 0.5, row + 0.5], atol=0.02)
    assert float(read.depth[4, row, column]) == pytest.approx(float(depth), rel=1e-4)
    assert not read.depth[4, :4].any()  # masked
    # The third light: the others are black here.
    assert float(read.images[4].mean()) > 0.05


def test_scannet(tmp_path):
    write_scannet(tmp_path / "scene0000_00", world_views(5, range(0, 12, 4), HEIGHT, WIDTH))
    np.savetxt(tmp_path / "scene0000_00" / "pose" / "3.txt", np.full((4, 4), -np.inf))
    scene = open_posed(tmp_path)[0]
    assert isinstance(scene, ImageScene)
    assert scene.numbers == (0, 1, 2)
    assert list(scene.left_out) == [3]
    read = scene.read(range(3), HEIGHT, WIDTH)
    folder = tmp_path / scene.name
    intrinsic = np.loadtxt(folder / "intrinsic" / "intrinsic_depth.txt")[:3, :3]
    color = np.loadtxt(folder / "intrinsic" / "intrinsic_color.txt")[:3, :3]
    first = np.linalg.inv(np.loadtxt(folder / "pose" / "0.txt"))
    for view in range(3):
        extrinsic = np.linalg.inv(np.loadtxt(folder / "pose" / f"{view}.txt"))
        depth = np.asarray(Image.open(folder / "depth" / f"{view}.png")) / 1000
        points, _ = known_points(depth, extrinsic, intrinsic)
        seen = (points @ extrinsic[:3, :3].T + extrinsic[:3, 3]) @ color.T  # by the colour camera
        check_points(read, points, first, seen[:, :2] / seen[:, 2:], view)


@pytest.mark.parametrize("damage", ["pose", "image", "intrinsics"])
def test_a_broken_frame_of_a_chunk_costs_itself_and_renumbers_nothing(damage, tmp_path, caplog):
    entry = chunk_entry("abc", world_views(6, range(5), 24, 24))
    whole = tmp_path / "whole.torch"
    torch.save([entry], whole)
    expected = open_posed(whole)[0].read([0, 1, 3, 4], 24, 24)
    if damage == "image":
        entry["images"][2] = torch.zeros(4, dtype=torch.uint8)
    else:
        entry["cameras"][2, 8 if damage == "pose" else 0] = torch.nan
    torch.save([entry], tmp_path / "broken.torch")
    scene = open_posed(tmp_path / "broken.torch")[0]
    assert isinstance(scene, ImageScene)
    assert scene.numbers == (0, 1, 3, 4)
    assert list(scene.left_out) == [2]
    assert "1 of 5 views have no usable camera or image and are left out (numbers 2)" in caplog.text
    read = scene.read(range(4), 24, 24)
    torch.testing.assert_close(read.cameras.world_from_camera, expected.cameras.world_from_camera)
    torch.testing.assert_close(read.images, expected.images)


@pytest.mark.parametrize(
    "text", ["", "extrinsic\n1 2 3\n", "extrinsic\n" + "nan " * 16 + "\nintrinsic\n" + "1 " * 9]
)
def test_a_broken_camera_file_costs_one_view(text, tmp_path, caplog):
    write_blended(tmp_path, world_views(3, (0, 5, 9), 16, 16))
    (tmp_path / "cams" / "00000001_cam.txt").write_text(text)
    scene = open_posed(tmp_path)[0]
    assert isinstance(scene, ImageScene)
    assert scene.numbers == (0, 2)
    assert "numbers 1" in caplog.text
