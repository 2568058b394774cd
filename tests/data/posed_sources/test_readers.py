"""Every reader on a scene written by the test: same cameras out as went in."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas3r.data.posed import PosedScene, PosedSource
from nas3r.data.posed_sources import ImageScene, open_posed
from nas3r.data.posed_sources.depth_image import read_pfm
from nas3r.geometry import invert_pose, quat_from_matrix, relative_to_first, se3_exp

WIDTH, HEIGHT = 40, 30
K = (36.0, 35.0, 21.0, 14.0)
VIEWS = 3


def poses() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return se3_exp(0.3 * torch.randn(VIEWS, 6, generator=generator, dtype=torch.float64))


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        Image.fromarray(picture(seed)).save(folder / name)


def names() -> list[str]:
    return [f"{i}.png" for i in range(VIEWS)]


def check(source: PosedSource, *, views: int = VIEWS) -> PosedScene:
    """The scene has the poses, intrinsics and pixels that were written."""
    assert isinstance(source, PosedSource)
    assert len(source) == 1
    scene = source[0]
    assert isinstance(scene, PosedScene)
    assert len(scene) == views
    read = scene.read(range(views), HEIGHT, WIDTH)
    expected = relative_to_first(poses()[:views])
    # Poses pass through float32 and, in text formats, 9 digits.
    torch.testing.assert_close(read.cameras.world_from_camera[0].double(), expected, atol=1e-6, rtol=0)
    fx, fy, cx, cy = K
    intrinsics = torch.tensor([[fx / WIDTH, 0, cx / WIDTH], [0, fy / HEIGHT, cy / HEIGHT], [0, 0, 1]])
    torch.testing.assert_close(read.cameras.intrinsics[0], intrinsics.expand(views, 3, 3))
    for i in range(views):
        np.testing.assert_array_equal((read.images[i] * 255).round().byte().permute(1, 2, 0), picture(i))
    return scene


def write_cameras_json(folder: Path, dist: tuple = ()) -> None:
    write_images(folder / "images", names())
    frames = [
        {"file": f"images/{n}", "size": [WIDTH, HEIGHT], "K": K, "dist": dist, "w2c": invert_pose(p).tolist()}
        for n, p in zip(names(), poses(), strict=True)
    ]
    (folder / "cameras.json").write_text(json.dumps({"frames": frames}))


def test_cameras_json(tmp_path):
    write_cameras_json(tmp_path)
    check(open_posed(tmp_path))


def test_negligible_distortion_is_left_alone(tmp_path):
    write_cameras_json(tmp_path, (1e-4, 0, 0, 0))
    check(open_posed(tmp_path))


def test_missing_images_are_dropped_and_counted(tmp_path, caplog):
    write_cameras_json(tmp_path)
    (tmp_path / "images" / "2.png").unlink()
    check(open_posed(tmp_path), views=2)
    assert "1 of 3 images" in caplog.text


@pytest.mark.parametrize("damage", ["{", '{"frames": [{"w2c": 1}]}', '{"frames": [], "w2c": 0}'])
def test_damaged_cameras_json_is_named(tmp_path, damage):
    write_cameras_json(tmp_path)
    (tmp_path / "cameras.json").write_text(damage + ' "w2c"' if damage == "{" else damage)
    with pytest.raises(ValueError, match=tmp_path.name):
        open_posed(tmp_path)[0]


def write_transforms(folder: Path, **extra) -> None:
    write_images(folder / "images", names())
    flip = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    frames = [
        {"file_path": f"images/{n}", "transform_matrix": (p @ flip).tolist()}
        for n, p in zip(names(), poses(), strict=True)
    ]
    fx, fy, cx, cy = K
    content = {"w": WIDTH, "h": HEIGHT, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, **extra, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))


def test_nerfstudio(tmp_path):
    write_transforms(tmp_path)
    check(open_posed(tmp_path))
    check(open_posed(tmp_path / "transforms.json"))


def test_nerfstudio_for_larger_originals(tmp_path):
    fx, fy, cx, cy = (3 * k for k in K)
    write_transforms(tmp_path, w=3 * WIDTH, h=3 * HEIGHT, fl_x=fx, fl_y=fy, cx=cx, cy=cy)
    check(open_posed(tmp_path))


def test_nerfstudio_refuses_panoramas(tmp_path):
    write_transforms(tmp_path, camera_model="EQUIRECTANGULAR")
    with pytest.raises(ValueError, match="EQUIRECTANGULAR"):
        open_posed(tmp_path)[0]


def test_nerfstudio_from_field_of_view(tmp_path):
    write_transforms(tmp_path)
    content = json.loads((tmp_path / "transforms.json").read_text())
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        del content[key]
    content["camera_angle_x"] = 2 * np.arctan(0.5)
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    k = open_posed(tmp_path)[0].read([0], HEIGHT, WIDTH).cameras.pixel_intrinsics(WIDTH, HEIGHT)[0, 0]
    expected = torch.tensor([[WIDTH, 0, WIDTH / 2], [0, WIDTH, HEIGHT / 2], [0, 0, 1.0]])
    torch.testing.assert_close(k, expected)


def colmap_rows() -> list[tuple]:
    w2c = invert_pose(poses())
    return [
        (i + 1, *quat_from_matrix(w2c[i, :3, :3]).tolist(), *w2c[i, :3, 3].tolist(), 1, n)
        for i, n in enumerate(names())
    ]


def write_colmap_text(folder: Path) -> None:
    write_images(folder / "images", names())
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text(f"# comment\n1 PINHOLE {WIDTH} {HEIGHT} {' '.join(map(str, K))}\n")
    lines = [" ".join(map(repr, row[:8])) + f" 1 {row[9]}" for row in colmap_rows()]
    points = ["1.5 2.5 -1", "", "3 4 7"]
    text = "".join(f"{line}\n{p}\n" for line, p in zip(lines, points, strict=True))
    (model / "images.txt").write_text(f"# comment\n{text}".replace("'", ""))


def write_colmap_binary(folder: Path) -> Path:
    write_images(folder / "images", names())
    model = folder / "sparse"
    model.mkdir(parents=True)
    cameras = struct.pack("<Q", 1) + struct.pack("<iiQQ4d", 1, 1, WIDTH, HEIGHT, *K)
    (model / "cameras.bin").write_bytes(cameras)
    images = struct.pack("<Q", VIEWS)
    for number, row in enumerate(colmap_rows()):
        images += struct.pack("<i7di", *row[:8], 1) + row[9].encode() + b"\0"
        images += struct.pack("<Q", number) + struct.pack("<ddq", 1.0, 2.0, -1) * number
    (model / "images.bin").write_bytes(images)
    return model


def test_colmap_text(tmp_path):
    write_colmap_text(tmp_path)
    check(open_posed(tmp_path))


def test_colmap_binary(tmp_path):
    write_colmap_binary(tmp_path)
    check(open_posed(tmp_path))


def test_colmap_as_pycolmap_writes_it(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    write_colmap_text(tmp_path)
    (tmp_path / "sparse" / "0" / "points3D.txt").write_text("")
    text = (
        (tmp_path / "sparse" / "0" / "images.txt").read_text().replace("1.5 2.5 -1", "").replace("3 4 7", "")
    )
    (tmp_path / "sparse" / "0" / "images.txt").write_text(text)
    model = pycolmap.Reconstruction(tmp_path / "sparse" / "0")
    binary = tmp_path / "binary"
    (binary / "sparse").mkdir(parents=True)
    model.write_binary(str(binary / "sparse"))
    write_images(binary / "images", names())
    check(open_posed(binary))


@pytest.mark.parametrize("keep", [4, 60, 200])
def test_truncated_colmap_is_named(tmp_path, keep):
    model = write_colmap_binary(tmp_path)
    (model / "images.bin").write_bytes((model / "images.bin").read_bytes()[:keep])
    with pytest.raises(ValueError, match="damaged or truncated"):
        open_posed(tmp_path)[0]


def depth_picture() -> np.ndarray:
    depth = np.full((HEIGHT, WIDTH), 2000, np.uint16)
    depth[:, : WIDTH // 2] = 1500
    depth[0] = 0
    depth[1] = 65535
    return depth


@pytest.mark.parametrize("layout", ["official", "folders"])
def test_seven_scenes(tmp_path, layout):
    official = layout == "official"
    for part in ("color", "depth", "pose"):
        (tmp_path / part).mkdir()
    for i, pose in enumerate(poses()):
        stem = f"frame-{i:06d}"
        color = f"{stem}.color.png" if official else f"color/{stem}.png"
        Image.fromarray(picture(i)).save(tmp_path / color)
        if i != 1:
            depth = f"{stem}.depth.png" if official else f"depth/{stem}.png"
            Image.fromarray(depth_picture()).save(tmp_path / depth)
        np.savetxt(tmp_path / (f"{stem}.pose.txt" if official else f"pose/{stem}.txt"), pose.numpy())
    if official:
        for part in ("color", "depth", "pose"):
            (tmp_path / part).rmdir()
        np.savetxt(tmp_path / "frame-000099.pose.txt", np.full((4, 4), -np.inf))  # lost tracking
    fx, fy, cx, cy = K
    np.savetxt(tmp_path / "camera-intrinsics.txt", [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    scene = check(open_posed(tmp_path))
    assert isinstance(scene, ImageScene)
    assert scene.has_depth == [True, False, True]
    depth = scene.read([0, 1], HEIGHT, WIDTH).depth
    assert depth is not None
    expected = torch.from_numpy(depth_picture().astype(np.float32)) / 1000
    expected[:2] = 0  # both ways to say unknown
    torch.testing.assert_close(depth[0], expected)
    assert not depth[1].any()


def test_tum(tmp_path):
    folder = tmp_path / "rgbd_dataset_freiburg3_desk"
    write_images(folder / "rgb", names())
    (folder / "depth").mkdir()
    Image.fromarray(depth_picture()).save(folder / "depth" / "0.png")
    rows = [f"{i}.0 rgb/{n}" for i, n in enumerate(names())]
    (folder / "rgb.txt").write_text("# color images\n" + "\n".join([*rows, "9.0 rgb/0.png"]))
    (folder / "depth.txt").write_text("0.01 depth/0.png\n")
    truth = []
    for i, pose in enumerate(poses()):
        w, x, y, z = quat_from_matrix(pose[:3, :3]).tolist()
        truth.append(" ".join(map(str, [i + 0.005, *pose[:3, 3].tolist(), x, y, z, w])))
    (folder / "groundtruth.txt").write_text("\n".join(truth))
    scene = open_posed(folder)[0]
    assert len(scene) == VIEWS  # the fourth image has no pose near in time
    assert isinstance(scene, ImageScene)
    assert scene.has_depth == [True, False, False]
    read = scene.read(range(VIEWS), HEIGHT, WIDTH)
    torch.testing.assert_close(
        read.cameras.world_from_camera[0].double(), relative_to_first(poses()), atol=1e-6, rtol=0
    )
    assert read.depth is not None
    assert float(read.depth[0, -1, -1]) == pytest.approx(2000 / 5000)


def chunk_entry(key: str) -> dict:
    fx, fy, cx, cy = K
    head = torch.tensor([fx / WIDTH, fy / HEIGHT, cx / WIDTH, cy / HEIGHT, 0, 0], dtype=torch.float64)
    rows = torch.cat([head.expand(VIEWS, 6), invert_pose(poses())[:, :3].reshape(VIEWS, 12)], 1)
    images = []
    for i in range(VIEWS):
        buffer = io.BytesIO()
        Image.fromarray(picture(i)).save(buffer, "PNG")
        images.append(torch.tensor(np.frombuffer(buffer.getvalue(), np.uint8).copy()))
    return {
        "key": key,
        "url": "",
        "cameras": rows.float(),
        "images": images,
        "timestamps": torch.arange(VIEWS),
    }


def test_chunks(tmp_path):
    torch.save([chunk_entry("abc")], tmp_path / "000000.torch")
    check(open_posed(tmp_path))
    (tmp_path / "index.json").write_text(json.dumps({"abc": "000000.torch"}))
    assert check(open_posed(tmp_path)).name == "abc"


def test_damaged_chunk_costs_only_its_scenes(tmp_path):
    torch.save([chunk_entry("abc")], tmp_path / "000000.torch")
    (tmp_path / "000001.torch").write_bytes(b"no chunk")
    broken = chunk_entry("def")
    broken["cameras"] = broken["cameras"][:, :3].clone()
    torch.save([broken], tmp_path / "000002.torch")
    source = open_posed(tmp_path)
    assert len(source) == 3
    assert source[0].name == "abc"
    with pytest.raises(ValueError, match="000001"):
        source[1]
    with pytest.raises(ValueError, match="def"):
        source[2]


def write_stereo_2006(folder: Path, *, offset: int | None) -> None:
    folder.mkdir()
    for seed, stem in enumerate(("view1", "view5")):
        Image.fromarray(picture(seed)).save(folder / f"{stem}.png")
    disparity = np.full((HEIGHT, WIDTH), 90, np.uint8)
    disparity[0] = 0
    Image.fromarray(disparity).save(folder / "disp1.png")
    if offset is not None:
        (folder / "dmin.txt").write_text(f"{offset}\n")


def test_stereo_2006(tmp_path):
    write_stereo_2006(tmp_path / "Art", offset=210)
    scene = open_posed(tmp_path / "Art")[0]
    read = scene.read([0, 1], HEIGHT, WIDTH)
    assert read.depth is not None
    # Third size (the images are narrow): Z = f B / (d + dmin / 3) = 3740 / 3 * 0.16 / (30 + 70).
    assert float(read.depth[0, 5, 5]) == pytest.approx(3740 / 3 * 0.16 / 100)
    assert not read.depth[0, 0].any()
    assert read.depth_known_up_to == "scale"
    # A point on the left ray at that depth falls d = 30 px further left on the right.
    k = read.cameras.pixel_intrinsics(WIDTH, HEIGHT)[0]
    baseline = float(read.cameras.world_from_camera[0, 1, 0, 3])
    left = float(k[0, 0, 0] * 0.1 / read.depth[0, 5, 5] + k[0, 0, 2])
    right = float(k[1, 0, 0] * (0.1 - baseline) / read.depth[0, 5, 5] + k[1, 0, 2])
    assert left - right == pytest.approx(30, abs=1e-3)  # float32 pixels


def test_stereo_without_offset_says_so(tmp_path):
    write_stereo_2006(tmp_path / "Wood", offset=None)
    read = open_posed(tmp_path / "Wood")[0].read([0], HEIGHT, WIDTH)
    assert read.depth_known_up_to == "disparity_shift"


def test_stereo_2014(tmp_path):
    for seed, stem in enumerate(("im0", "im1")):
        Image.fromarray(picture(seed)).save(tmp_path / f"{stem}.png")
    (tmp_path / "calib.txt").write_text(
        "cam0=[36 0 21; 0 36 14; 0 0 1]\ncam1=[36 0 25; 0 36 14; 0 0 1]\ndoffs=4\nbaseline=200\n"
        f"width={WIDTH}\nheight={HEIGHT}\n"
    )
    disparity = np.full((HEIGHT, WIDTH), 5, np.float32)
    disparity[0] = np.inf
    (tmp_path / "disp0GT.pfm").write_bytes(f"Pf\n{WIDTH} {HEIGHT}\n-1\n".encode() + disparity[::-1].tobytes())
    np.testing.assert_array_equal(read_pfm(tmp_path / "disp0GT.pfm"), disparity)
    scene = open_posed(tmp_path)[0]
    read = scene.read([0, 1], HEIGHT, WIDTH)
    assert read.depth is not None
    assert float(read.depth[0, 3, 3]) == pytest.approx(0.2 * 36 / (5 + 4))
    assert not read.depth[0, 0].any()
    assert isinstance(scene, ImageScene)
    assert scene.has_depth == [True, False]


def test_folder_of_scenes(tmp_path, caplog):
    write_stereo_2006(tmp_path / "Art", offset=None)
    (tmp_path / "other").mkdir()
    write_cameras_json(tmp_path / "photos")
    source = open_posed(tmp_path)
    assert [source[i].name for i in range(len(source))] == ["Art", "photos"]
    assert "other" in caplog.text
    assert getattr(source, "unrecognised", ()) == ("other",)


def test_synthetic_worlds():
    source = open_posed("synthetic:3:5")
    assert len(source) == 5
    views = source[0].read([0, 1], 16, 16)
    assert views.depth is not None
    assert bool((views.depth > 0).any())


def test_unknown_data_is_explained(tmp_path):
    with pytest.raises(ValueError, match="no posed data found"):
        open_posed(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_posed(tmp_path / "nothing")


def test_own_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_scenes.py").write_text("def scenes():\n    return [1]\n\ndef wrong():\n    return 3\n")
    assert len(open_posed("my_scenes:scenes")) == 1
    with pytest.raises(ValueError, match="PosedSource"):
        open_posed("my_scenes:wrong")
    with pytest.raises(ValueError, match="imported"):
        open_posed("my_scenes:absent")


def test_published_crop_and_intrinsics(reference_folder):
    """The official crop of a 640x360 image, through `ImageScene`."""
    import zlib

    stored = np.load(reference_folder / "modules" / "crop.npz")
    count = 3 * 360 * 640
    words = np.random.Philox(key=zlib.crc32(b"input/crop")).random_raw((count + 1) // 2)
    unit = (words.astype("<u8").view("<u4")[:count] >> 8).astype(np.float32) * np.float32(2.0**-23) - 1
    image = ((unit + 1) * 128).astype(np.uint8).reshape(3, 360, 640).transpose(1, 2, 0)
    from nas3r.data.posed_sources.scene import Frame, pinhole

    k0 = stored["k0"]
    intrinsics = pinhole(k0[0, 0] * 640, k0[1, 1] * 360, k0[0, 2] * 640, k0[1, 2] * 360)
    frame = Frame(lambda: image, torch.eye(4, dtype=torch.float64), intrinsics, (640, 360))
    for size, step in ((224, 7), (256, 8)):
        read = ImageScene("crop", [frame]).read([0], size, size)
        pixels = (read.images[0] * 255).round().byte().numpy()[:, ::step, ::step]
        np.testing.assert_array_equal(pixels, stored[f"crop{size}"])
        k, official = read.cameras.intrinsics[0, 0].numpy(), stored[f"k{size}"]
        np.testing.assert_allclose(np.diag(k), np.diag(official), rtol=1e-6)
        # The official code keeps the principal point; where the crop is not even it is half a pixel off.
        np.testing.assert_allclose(k[:2, 2], official[:2, 2], atol=0.5 / size + 1e-6)


def test_real_data(shared_data):
    fox = open_posed(shared_data / "fox")[0].read([0, 1], 64, 64)
    frames = json.loads((shared_data / "fox" / "transforms.json").read_text())["frames"]
    assert [f["file_path"] for f in frames[:2]] == ["images/0001.jpg", "images/0002.jpg"]
    opengl = torch.tensor([f["transform_matrix"] for f in frames[:2]], dtype=torch.float64)
    expected = relative_to_first(opengl * torch.tensor([1.0, -1, -1, 1]))
    # Digits of the file, and poses in float32 at distances of a few units.
    torch.testing.assert_close(fox.cameras.world_from_camera[0].double(), expected, atol=1e-5, rtol=0)
    with Image.open(shared_data / "fox" / "images" / "0001.jpg") as photo:
        middle = np.asarray(photo.convert("RGB").resize((64, 114)))[25:89].astype(np.float64)
    # The lens distortion that is taken out moves pixels by less than one of these.
    assert np.abs(fox.images[0].permute(1, 2, 0).numpy() * 255 - middle).mean() < 6
    kitchen = open_posed(shared_data / "7scenes_redkitchen")[0]
    assert isinstance(kitchen, ImageScene)
    assert (len(kitchen), sum(kitchen.has_depth)) == (300, 100)
    pairs = open_posed(shared_data / "middlebury_2001_2006")
    assert len(pairs) == 25
