"""Cameras and depth written by us and read back by us, pycolmap and nerfbaselines."""

import json

import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas3r.geometry import so3_exp
from nas3r.io.cameras import read_cameras, write_cameras
from nas3r.io.colmap import SparsePoints, write_colmap
from nas3r.io.depth import (
    DepthMap,
    depth_step,
    read_depth_npz,
    read_depth_png,
    write_depth_npz,
    write_depth_png,
)
from nas3r.io.images import Resize
from nas3r.io.nerfstudio import read_transforms, write_transforms
from nas3r.io.photo_camera import PhotoCamera
from nas3r.io.ply import read_point_cloud, write_point_cloud

sizes = st.integers(2, 5000)
seeds = st.integers(0, 10_000)


def camera(seed=0, file="images/a.jpg", width=640, height=480):
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = so3_exp(torch.from_numpy(rng.normal(size=3))).numpy()
    pose[:3, 3] = rng.normal(size=3)
    focal = rng.uniform(0.3, 3, 2) * width
    k = np.array(
        [[focal[0], 0, width / 2 + rng.normal()], [0, focal[1], height / 2 + rng.normal()], [0, 0, 1]]
    )
    return PhotoCamera(file, width, height, k, pose)


def assert_same(a, b, atol=1e-12):
    assert (a.file, a.width, a.height) == (b.file, b.width, b.height)
    np.testing.assert_allclose(a.intrinsics, b.intrinsics, rtol=1e-12)
    np.testing.assert_allclose(a.world_from_camera, b.world_from_camera, atol=atol)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, width=sizes, height=sizes, views=st.integers(1, 4))
def test_json_round_trips(tmp_path_factory, seed, width, height, views):
    folder = tmp_path_factory.mktemp("cameras")
    sent = [camera(seed + i, f"images/{i}.png", width, height) for i in range(views)]
    write_cameras(folder / "cameras.json", sent)
    write_transforms(folder / "transforms.json", sent)
    for back in (read_cameras(folder / "cameras.json"), read_transforms(folder / "transforms.json")):
        for a, b in zip(sent, back, strict=True):
            assert_same(a, b)


def test_transforms_use_opengl_axes(tmp_path):
    """A camera that looks along +z of the world with y down looks along its own -z with y up in OpenGL."""
    still = PhotoCamera("images/a.jpg", 4, 3, np.array([[4.0, 0, 2], [0, 4, 1.5], [0, 0, 1]]), np.eye(4))
    write_transforms(tmp_path / "transforms.json", [still], point_cloud="points.ply")
    document = json.loads((tmp_path / "transforms.json").read_text())
    pose = np.array(document["frames"][0]["transform_matrix"])
    np.testing.assert_array_equal(pose @ [0, 0, -1, 0], [0, 0, 1, 0])
    np.testing.assert_array_equal(pose @ [0, 1, 0, 0], [0, -1, 0, 0])
    assert document["ply_file_path"] == "points.ply"


def sparse_points(n, views):
    rng = np.random.default_rng(1)
    return SparsePoints(
        rng.normal(size=(n, 3)),
        rng.integers(0, 256, (n, 3)).astype(np.uint8),
        np.zeros(n),
        np.arange(n),
        rng.integers(0, views, n),
        rng.uniform(0, 400, (n, 2)),
    )


@pytest.mark.parametrize("num_points", [0, 30])
def test_pycolmap_reads_the_model(tmp_path, num_points):
    sent = [camera(i, f"images/{i} .jpg".replace(" ", ""), 640 + i, 480) for i in range(3)]
    points = sparse_points(num_points, 3)
    write_colmap(tmp_path / "sparse" / "0", sent, points)
    model = pycolmap.Reconstruction(tmp_path / "sparse" / "0")
    by_name = {image.name: image for image in model.images.values()}
    assert sorted(by_name) == ["0.jpg", "1.jpg", "2.jpg"]
    for i, view in enumerate(sent):
        image = by_name[f"{i}.jpg"]
        colmap_camera = model.cameras[image.camera_id]
        assert (colmap_camera.width, colmap_camera.height) == (view.width, view.height)
        np.testing.assert_allclose(colmap_camera.calibration_matrix(), view.intrinsics, rtol=1e-12)
        pose = image.cam_from_world
        pose = (pose() if callable(pose) else pose).matrix()
        np.testing.assert_allclose(pose, view.camera_from_world[:3], atol=1e-9)  # through a quaternion
        # COLMAP's own projection of a point in front of the camera lands where ours does.
        in_camera = np.array([0.1, -0.2, 2.0])
        world = view.world_from_camera[:3, :3] @ in_camera + view.world_from_camera[:3, 3]
        ours = view.intrinsics @ in_camera / in_camera[2]
        np.testing.assert_allclose(image.project_point(world), ours[:2], atol=1e-6)
        seen = points.pixels[points.view == i]
        np.testing.assert_allclose(
            [p.xy for p in image.points2D] or np.zeros((0, 2)), seen, atol=6e-4
        )  # 3 decimals
    assert len(model.points3D) == num_points
    for j, point in model.points3D.items():
        np.testing.assert_allclose(point.xyz, points.positions[j - 1])
        np.testing.assert_array_equal(point.color, points.colors[j - 1])
        element = point.track.elements[0]
        assert model.images[element.image_id].name == f"{points.view[j - 1]}.jpg"
        assert model.images[element.image_id].points2D[element.point2D_idx].point3D_id == j


def test_nerfbaselines_reads_the_transforms(tmp_path):
    """Reads nerfstudio data, installs without nerfstudio; not a dependency: it pins an old numpy."""
    nerfstudio = pytest.importorskip("nerfbaselines.datasets.nerfstudio")
    sent = [camera(i, f"images/{i}.png", 64, 48) for i in range(3)]
    write_transforms(tmp_path / "transforms.json", sent)
    for view in sent:
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (64, 48)).save(tmp_path / view.file)
    cameras = nerfstudio.load_nerfstudio_dataset(tmp_path, "train", eval_mode="all")["cameras"]
    for i, view in enumerate(sent):
        k = view.intrinsics
        np.testing.assert_allclose(cameras.intrinsics[i], [k[0, 0], k[1, 1], k[0, 2], k[1, 2]], rtol=1e-5)
        np.testing.assert_allclose(cameras.poses[i][:3, :4], view.world_from_camera[:3, :4], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(width=sizes, height=sizes, out_w=st.integers(1, 40), out_h=st.integers(1, 40), seed=seeds)
def test_intrinsics_of_a_resized_crop_come_back_to_the_original(width, height, out_w, out_h, seed):
    """What is exported is in pixels of the ORIGINAL photo: a ray through the same content has not moved."""
    resize = Resize(width, height, 8 * out_w, 8 * out_h)
    original = camera(seed, "a", width, height).intrinsics
    normalised = resize.apply_intrinsics(original)
    np.testing.assert_allclose(resize.undo_intrinsics(normalised), original, rtol=1e-9, atol=1e-9 * width)
    ray = np.array([0.05, -0.03, 1.0])
    x, y, _ = original @ ray
    scaled_w, scaled_h = resize.scaled_size
    left, top = resize.offset
    in_crop = np.array([x * scaled_w / width - left, y * scaled_h / height - top])
    np.testing.assert_allclose((normalised @ ray)[:2] * [8 * out_w, 8 * out_h], in_crop, rtol=1e-9, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(h=st.integers(1, 20), w=st.integers(1, 20), scale=st.sampled_from([1e-6, 1.0, 1e6]), seed=seeds)
def test_depth_round_trips(tmp_path_factory, h, w, scale, seed):
    folder = tmp_path_factory.mktemp("depth")
    depth = (np.random.default_rng(seed).uniform(0, scale, (h, w))).astype(np.float32)
    depth[0, 0] = 0
    step = depth_step(depth)
    write_depth_png(folder / "a.png", depth, step)
    np.testing.assert_allclose(read_depth_png(folder / "a.png"), depth, rtol=1e-6, atol=step * 0.51)
    sent = DepthMap(depth, np.eye(3), np.eye(4))
    write_depth_npz(folder / "a.npz", sent, step)
    np.testing.assert_array_equal(read_depth_npz(folder / "a.npz").depth, depth)
    with np.load(folder / "a.npz") as arrays:
        assert arrays["png_unit_per_count"] == step
        assert "scene unit" in str(arrays["unit"])


def test_other_readers_see_16_bits(tmp_path):
    write_depth_png(tmp_path / "a.png", np.array([[0.0, 0.5, 1.0]]), 1 / 65535)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), [[0, 32768, 65535]])
        assert image.mode == "I;16"
    cv2 = pytest.importorskip("cv2")
    read = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, [[0, 32768, 65535]])


@pytest.mark.parametrize("depth", [[[-1.0]], [[np.nan]], [[np.inf]], [[2.0]]])
def test_bad_depth_is_refused(tmp_path, depth):
    with pytest.raises(ValueError, match="depth: expected finite values in"):
        write_depth_png(tmp_path / "a.png", np.array(depth), 1 / 65535)
    assert not (tmp_path / "a.png").exists()


def test_point_cloud_round_trip_and_trimesh(tmp_path):
    rng = np.random.default_rng(0)
    points, colors = (
        rng.normal(size=(40, 3)).astype(np.float32),
        rng.integers(0, 256, (40, 3)).astype(np.uint8),
    )
    write_point_cloud(tmp_path / "points.ply", points, colors)
    for a, b in zip(read_point_cloud(tmp_path / "points.ply"), (points, colors), strict=True):
        np.testing.assert_array_equal(a, b)
    trimesh = pytest.importorskip("trimesh")
    cloud = trimesh.load(tmp_path / "points.ply")
    np.testing.assert_array_equal(cloud.vertices, points)
    np.testing.assert_array_equal(cloud.colors[:, :3], colors)
    with pytest.raises(ValueError, match="points and colors"):
        write_point_cloud(tmp_path / "points.ply", points, colors[:3])


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"frames": 3}', '{"frames": [{}]}', '{"format": "x", "version": 1}']
)
def test_damaged_json_is_one_sentence(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    for read in (read_cameras, read_transforms):
        with pytest.raises(ValueError, match=r"not a|expected (format|a JSON object)"):
            read(path)


def test_damaged_depth_is_one_sentence(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 no")
    (tmp_path / "a.png").write_bytes(b"no")
    Image.new("I;16", (2, 2)).save(tmp_path / "b.png")
    for name in ("a.npz", "a.png", "b.png"):
        with pytest.raises(ValueError, match="not a depth"):
            (read_depth_npz if name.endswith("npz") else read_depth_png)(tmp_path / name)


def test_cameras_that_are_no_cameras_are_refused():
    good = camera()
    with pytest.raises(ValueError, match="not a rigid motion"):
        PhotoCamera("a", 4, 4, good.intrinsics, np.diag([2.0, 1, 1, 1]))
    with pytest.raises(ValueError, match="not a rigid motion"):
        PhotoCamera("a", 4, 4, good.intrinsics, np.diag([-1.0, 1, 1, 1]))
    with pytest.raises(ValueError, match="positive focal"):
        PhotoCamera("a", 4, 4, np.diag([-1.0, 1, 1]), good.world_from_camera)
    with pytest.raises(ValueError, match="at least 1x1"):
        PhotoCamera("a", 0, 4, good.intrinsics, good.world_from_camera)
    with pytest.raises(ValueError, match="finite"):
        PhotoCamera("a", 4, 4, good.intrinsics * np.nan, good.world_from_camera)
