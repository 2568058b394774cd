"""A small whole file of every kind that is read, and how it is read."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nas3r.data.posed_sources import open_posed
from nas3r.data.posed_sources.stereo import read_pfm
from nas3r.data.shards.records import read_record, rejections
from nas3r.data.sources import open_source
from nas3r.data.sources.tars import parse_index
from nas3r.evaluation.protocols import read_index
from nas3r.evaluation.storage import read_json as read_part
from nas3r.gaussians import Gaussians
from nas3r.io.cameras import read_cameras, write_cameras
from nas3r.io.colmap import SparsePoints, write_colmap
from nas3r.io.depth import DepthMap, read_depth_npz, read_depth_png, write_depth_npz, write_depth_png
from nas3r.io.images import image_size, is_depth_like, load_image
from nas3r.io.nerfstudio import read_transforms, write_transforms
from nas3r.io.photo_camera import PhotoCamera
from nas3r.io.ply import read_ply, read_point_cloud, write_ply, write_point_cloud
from nas3r.io.splat import read_splat, write_splat
from nas3r.io.spz import read_spz, write_spz

SIDE = 12


@dataclass(frozen=True)
class Sample:
    """A file in a folder of its own, which the test may damage.

    Attributes:
        file: The file.
        read: Reads it (or the folder it lies in).
    """

    file: Path
    read: Callable[[], Any]


def picture(seed: int = 0, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (side, side, 3)).astype(np.uint8)


def camera(name: str, x: float = 0.0) -> PhotoCamera:
    pose = np.eye(4)
    pose[0, 3] = x
    k = np.array([[SIDE, 0, SIDE / 2], [0, SIDE, SIDE / 2], [0, 0, 1.0]])
    return PhotoCamera(name, SIDE, SIDE, k, pose)


def _gaussians() -> Gaussians:
    n = 5
    values = torch.rand(1, n, 3), torch.randn(1, n, 4), torch.rand(1, n, 3) + 0.1, torch.rand(1, n)
    return Gaussians(*values, torch.rand(1, n, 4, 3))


def _images(folder: Path) -> list[str]:
    names = [f"images/{i}.png" for i in range(3)]
    (folder / "images").mkdir()
    for seed, name in enumerate(names):
        Image.fromarray(picture(seed)).save(folder / name)
    return names


def _cameras(folder: Path) -> list[PhotoCamera]:
    return [camera(name, 0.1 * i) for i, name in enumerate(_images(folder))]


def _scene(folder: Path) -> Any:
    scene = open_posed(folder)[0]
    return scene.read(range(len(scene)), 8, 8)


# Each makes a sample in an empty folder.


def cameras_json(folder: Path) -> Sample:
    write_cameras(folder / "cameras.json", _cameras(folder))
    return Sample(folder / "cameras.json", lambda: read_cameras(folder / "cameras.json"))


def transforms_json(folder: Path) -> Sample:
    write_transforms(folder / "transforms.json", _cameras(folder))
    return Sample(folder / "transforms.json", lambda: read_transforms(folder / "transforms.json"))


def posed_transforms(folder: Path) -> Sample:
    write_transforms(folder / "transforms.json", _cameras(folder))
    return Sample(folder / "transforms.json", lambda: _scene(folder))


def posed_cameras(folder: Path) -> Sample:
    frames = [
        {"file": name, "size": [SIDE, SIDE], "K": [SIDE, SIDE, 6, 6], "w2c": np.eye(4).tolist()}
        for name in _images(folder)
    ]
    (folder / "cameras.json").write_text(json.dumps({"frames": frames}))
    return Sample(folder / "cameras.json", lambda: _scene(folder))


def evaluation_index(folder: Path) -> Sample:
    (folder / "a.json").write_text(json.dumps({"a": {"context": [0, 2], "target": [1], "overlap": 0.5}}))
    return Sample(folder / "a.json", lambda: read_index(folder / "a.json"))


def shard_index(folder: Path) -> Sample:
    path = folder / "index.json"
    path.write_text(json.dumps({"shards": [{"name": "a.tar", "clips": [{"name": "c", "frames": 3}]}]}))
    return Sample(path, lambda: parse_index(path.read_text(), str(path)))


def shard_report(folder: Path) -> Sample:
    videos = [{"video": "a", "error": "", "rejected": [{"first": 1, "reason": "static", "frames": 4}]}]
    (folder / "report.json").write_text(json.dumps({"per_video": videos}))
    return Sample(folder / "report.json", lambda: rejections(folder))


def shard_record(folder: Path) -> Sample:
    (folder / "a.json").write_text(json.dumps({"video": "a"}))
    return Sample(folder / "a.json", lambda: read_record(folder / "a.json"))


def evaluation_part(folder: Path) -> Sample:
    (folder / "a.json").write_text(json.dumps({"psnr": [1.0, 2.0]}))
    return Sample(folder / "a.json", lambda: read_part(folder / "a.json"))


def ply(folder: Path) -> Sample:
    write_ply(folder / "a.ply", _gaussians())
    return Sample(folder / "a.ply", lambda: read_ply(folder / "a.ply"))


def points(folder: Path) -> Sample:
    write_point_cloud(folder / "a.ply", np.zeros((4, 3)), np.zeros((4, 3), np.uint8))
    return Sample(folder / "a.ply", lambda: read_point_cloud(folder / "a.ply"))


def splat(folder: Path) -> Sample:
    write_splat(folder / "a.splat", _gaussians())
    return Sample(folder / "a.splat", lambda: read_splat(folder / "a.splat"))


def spz(folder: Path) -> Sample:
    write_spz(folder / "a.spz", _gaussians())
    return Sample(folder / "a.spz", lambda: read_spz(folder / "a.spz"))


def depth_png(folder: Path) -> Sample:
    write_depth_png(folder / "a.png", np.ones((SIDE, SIDE), np.float32), 0.01)
    return Sample(folder / "a.png", lambda: read_depth_png(folder / "a.png"))


def depth_npz(folder: Path) -> Sample:
    write_depth_npz(folder / "a.npz", DepthMap(np.ones((SIDE, SIDE)), np.eye(3), np.eye(4)), 0.01)
    return Sample(folder / "a.npz", lambda: read_depth_npz(folder / "a.npz"))


def colmap_text(folder: Path) -> Sample:
    none = SparsePoints(
        np.zeros((0, 3)),
        np.zeros((0, 3), np.uint8),
        np.zeros(0),
        np.zeros(0, int),
        np.zeros(0, int),
        np.zeros((0, 2)),
    )
    write_colmap(folder / "sparse" / "0", _cameras(folder), none)
    for file in (folder / "sparse" / "0").glob("*.bin"):  # which readers prefer
        file.unlink()
    return Sample(folder / "sparse" / "0" / "images.txt", lambda: _scene(folder))


def colmap_cameras(folder: Path) -> Sample:
    return Sample(colmap_text(folder).file.with_name("cameras.txt"), lambda: _scene(folder))


def chunk(folder: Path) -> Sample:
    files = [torch.tensor(list((folder / name).read_bytes()), dtype=torch.uint8) for name in _images(folder)]
    row = [1.0, 1, 0.5, 0.5, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    torch.save([{"key": "a", "cameras": torch.tensor([row] * 3), "images": files}], folder / "a.torch")
    return Sample(folder / "a.torch", lambda: (_scene(folder), open_source(folder)[0].read([0, 1])))


def tar_shard(folder: Path) -> Sample:
    with tarfile.open(folder / "a.tar", "w") as tar:
        for i in range(3):
            buffer = io.BytesIO()
            Image.fromarray(picture(i)).save(buffer, "JPEG")
            entry = tarfile.TarInfo(f"clip.{i}.jpg")
            entry.size = buffer.tell()
            tar.addfile(entry, io.BytesIO(buffer.getvalue()))
    return Sample(folder / "a.tar", lambda: open_source(folder)[0].read([0, 1, 2]))


def pfm(folder: Path) -> Sample:
    (folder / "a.pfm").write_bytes(b"Pf\n4 3\n-1.0\n" + np.ones(12, "<f4").tobytes())
    return Sample(folder / "a.pfm", lambda: read_pfm(folder / "a.pfm"))


def tum(folder: Path) -> Sample:
    names = _images(folder)
    (folder / "rgb.txt").write_text("\n".join(f"{i}.0 {name}" for i, name in enumerate(names)))
    (folder / "groundtruth.txt").write_text("\n".join(f"{i}.0 0 0 {i} 0 0 0 1" for i in range(3)))
    return Sample(folder / "groundtruth.txt", lambda: _scene(folder))


def _image(suffix: str) -> Callable[[Path], Sample]:
    def make(folder: Path) -> Sample:
        path = folder / f"a{suffix}"
        Image.fromarray(picture(side=40)).save(path)
        return Sample(path, lambda: (image_size(path), is_depth_like(path), load_image(path)))

    make.__name__ = f"image_{suffix[1:]}"
    return make


JSON = [
    *(cameras_json, transforms_json, posed_transforms, posed_cameras, evaluation_index, shard_index),
    *(shard_report, shard_record, evaluation_part),
]
OTHER = [
    *(ply, points, splat, spz, depth_png, depth_npz, colmap_text, colmap_cameras, chunk, tar_shard, pfm, tum),
    *(_image(s) for s in (".png", ".jpg", ".webp", ".tif", ".gif", ".bmp", ".ppm", ".jp2")),
]
