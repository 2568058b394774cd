"""One bad thing does not take the good ones with it; what is wrong is named in words."""

import json
import math
import os
import shutil
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from samples import SIDE, chunk, colmap_text, picture, posed_cameras, posed_transforms, tar_shard, tum

from nas3r.data.posed_sources import open_posed
from nas3r.data.sources import open_source
from nas3r.data.sources.chunks import load_chunk
from nas3r.io.images import Resize
from nas3r.reconstruction import ReconstructOptions, reconstruct
from nas3r.reconstruction.photos import View, with_names


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e9])
@pytest.mark.parametrize(("make", "key"), [(posed_cameras, "w2c"), (posed_transforms, "transform_matrix")])
def test_a_pose_that_is_none_costs_one_view(make, key, bad, tmp_path, caplog):
    sample = make(tmp_path)
    content = json.loads(sample.file.read_text())
    content["frames"][1][key][0][0] = bad
    sample.file.write_text(json.dumps(content))
    assert len(open_posed(tmp_path)[0]) == 2
    assert "1 of 3 views have no usable camera" in caplog.text


def test_a_pose_that_is_none_costs_one_view_of_a_model(tmp_path, caplog):
    path = colmap_text(tmp_path).file
    lines = path.read_text().splitlines()
    rows = [i for i, line in enumerate(lines) if line.endswith(".png")]
    words = lines[rows[1]].split()
    lines[rows[1]] = " ".join([words[0], "nan", *words[2:]])
    path.write_text("\n".join(lines) + "\n")
    assert len(open_posed(tmp_path)[0]) == 2
    assert "1 of 3 views have no usable camera" in caplog.text


def test_of_several_models_the_largest_is_read(tmp_path):
    whole = colmap_text(tmp_path).file.parent
    shutil.copytree(whole, whole.with_name("1"))
    images = (whole / "images.txt").read_text().splitlines(keepends=True)
    (whole / "images.txt").write_text("".join(images[:-4]))  # a fragment, as mappers often leave as the first
    assert len(open_posed(tmp_path)[0]) == 3


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1 THIN_PRISM_FISHEYE 12 12 " + "1 " * 12, "THIN_PRISM_FISHEYE is not supported"),
        ("1 SOMETHING_NEW 12 12 1 1", "SOMETHING_NEW is not supported"),
        ("1 PINHOLE 12 12 1 1", "PINHOLE: expected 4 parameters, got 2"),
    ],
)
def test_lenses_that_are_not_read_are_called_that(line, says, tmp_path):
    path = colmap_text(tmp_path).file.with_name("cameras.txt")
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=says) as raised:
        open_posed(tmp_path)[0]
    assert ("damaged" in str(raised.value)) == ("expected" in says)


@pytest.mark.parametrize(("number", "says"), [(10, "THIN_PRISM_FISHEYE"), (77, "number 77")])
def test_lenses_that_are_not_read_in_binary_models(number, says, tmp_path):
    model = colmap_text(tmp_path).file.parent
    for path in model.iterdir():
        path.unlink()
    (model / "cameras.bin").write_bytes(struct.pack("<QiiQQ12d", 1, 1, number, 12, 12, *[1.0] * 12))
    (model / "images.bin").write_bytes(struct.pack("<Q", 0))
    with pytest.raises(ValueError, match=f"{says} is not supported") as raised:
        open_posed(tmp_path)[0]
    assert "damaged" not in str(raised.value)


def test_blenders_transforms_are_read(tmp_path):
    posed_transforms(tmp_path)
    (tmp_path / "transforms.json").unlink()
    for split, count in (("train", 2), ("test", 1)):
        frames = [
            {"file_path": f"./images/{i}", "transform_matrix": np.eye(4).tolist()} for i in range(count)
        ]
        content = {"camera_angle_x": math.pi / 2, "frames": frames}
        (tmp_path / f"transforms_{split}.json").write_text(json.dumps(content))
    scene = open_posed(tmp_path)[0]
    assert len(scene) == 3
    assert scene.read([0], 8, 8).cameras.intrinsics[0, 0, 0, 0] == pytest.approx(0.5)


def test_no_focal_length_is_said_in_words(tmp_path):
    path = posed_transforms(tmp_path).file
    content = json.loads(path.read_text())
    for frame in content["frames"]:
        del frame["fl_x"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="tells no focal length"):
        open_posed(tmp_path)[0]


def test_a_broken_shard_beside_a_good_one_is_left_out_and_named(tmp_path, caplog):
    good = tar_shard(tmp_path).file.read_bytes()
    (tmp_path / "b.tar").write_bytes(good[:100] + b"\xff" * 100 + good[200:])
    (tmp_path / "c.tar").write_bytes(b"")
    (tmp_path / "d.tar").write_bytes(good[: len(good) // 4])
    source = open_source(tmp_path)
    assert len(source) >= 1
    assert "b.tar is left out" in caplog.text
    (tmp_path / "a.tar").unlink()
    (tmp_path / "c.tar").unlink()
    (tmp_path / "d.tar").unlink()
    with pytest.raises(ValueError, match=r"no shard can be read: .*b\.tar"):
        open_source(tmp_path)


def test_a_shard_whose_sizes_are_negative(tmp_path):
    path = tar_shard(tmp_path).file
    data = bytearray(path.read_bytes())
    data[124:136] = b"\xff" * 12  # base-256 for -1
    data[148:156] = b"        "
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.tar"):
        open_source(tmp_path)


def test_a_broken_chunk_beside_a_good_one_is_left_out_and_named(tmp_path, caplog):
    chunk(tmp_path)
    (tmp_path / "b.torch").write_bytes(b"no chunk")
    assert len(open_source(tmp_path)) == 1
    assert "b.torch is left out" in caplog.text


def claims() -> dict[str, torch.Tensor]:
    byte = torch.zeros(1, dtype=torch.uint8)
    return {
        "repeated": byte.expand(6 * 2**30),
        "meta": torch.zeros(6 * 2**30, dtype=torch.uint8, device="meta"),
        "sparse": torch.sparse_coo_tensor(torch.tensor([[0]]), byte, (6 * 2**30,)),
    }


@pytest.mark.parametrize("kind", claims())
@pytest.mark.parametrize("place", ["images", "cameras"])
def test_tensors_that_claim_more_than_is_stored(kind, place, tmp_path):
    tensor = claims()[kind]
    entry = {"key": "a", "images": [torch.zeros(3, dtype=torch.uint8)], "cameras": torch.zeros(1, 18)}
    entry[place] = [tensor] if place == "images" else tensor.float() if kind == "meta" else tensor
    torch.save([entry], tmp_path / "a.torch")
    assert (tmp_path / "a.torch").stat().st_size < 4000
    with pytest.raises(ValueError, match=r"a\.torch"):
        load_chunk(tmp_path / "a.torch")


NAMES = [
    b"photo_\xff\xfe.jpg",
    b"x" * 240 + b".jpg",
    "\N{SNOWMAN} \n.jpg".encode(),
    b"-rf.jpg",
    b".hidden.jpg",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_photos_of_any_name_make_a_whole_result(name, photos, weights, tmp_path):
    try:
        (photos / "photo_2.jpg").rename(photos / os.fsdecode(name))
    except OSError:
        pytest.skip("this file system takes no such name")
    inputs = sorted(photos.iterdir())
    result = reconstruct(inputs, ReconstructOptions(views=4), weights=weights)
    result.save(tmp_path / "out", exports=["colmap", "nerfstudio", "report"])
    assert len(json.loads((tmp_path / "out" / "reconstruction.json").read_text())["views"]) == 4


def test_long_names_stay_apart():
    views = [View("x" * 250 + f"{i}.jpg", "", None, None, Resize(1, 1, 1, 1), 1.0) for i in range(3)]
    names = [view.name for view in with_names(views)]
    assert len(set(names)) == 3
    assert max(map(len, names)) < 130


def test_a_recording_with_one_lost_pose(tmp_path):
    path = tum(tmp_path).file
    path.write_text(path.read_text().replace("1.0 0 0 1 0 0 0 1", "1.0 nan nan nan nan nan nan nan"))
    assert len(open_posed(tmp_path)[0]) == 2


def test_the_pictures_of_a_chunk_are_still_read(tmp_path):
    sample = chunk(tmp_path)
    assert open_source(tmp_path)[0].read([1]).shape == (1, 3, SIDE, SIDE)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "images" / "1.png")), picture(1))
    assert sample.file.exists()
