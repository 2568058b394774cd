"""Miniatures of published data sets: a few views of generated worlds, in the files that people have.

Everything is written with numpy from the documented formats, not with the package's own writers.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nas3r.data.posed import PosedViews
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes

WORLDS = SyntheticConfig(
    families={"room": 1.0}, paths={"orbit": 1.0}, baseline=(0.5, 0.5), rotation=(10, 10), shake=0, frames=12
)
MILLIMETRES = 200.0  # of one unit of a world, in data that count so


def world_views(seed: int, frames: Sequence[int], height: int, width: int) -> PosedViews:
    """Frames of one world, with depth."""
    return SyntheticScenes(seed=seed, config=WORLDS, length=1)[0].read(frames, height, width)


def pixels(views: PosedViews, i: int) -> np.ndarray:
    return (views.images[i] * 255 + 0.5).clamp(0, 255).byte().permute(1, 2, 0).numpy()


def camera_from_world(views: PosedViews, i: int, unit: float = 1.0) -> np.ndarray:
    pose = np.linalg.inv(views.cameras.world_from_camera[0, i].double().numpy())
    pose[:3, 3] *= unit
    return pose


def pixel_intrinsics(views: PosedViews, i: int, width: int, height: int) -> np.ndarray:
    k = views.cameras.intrinsics[0, i].double().numpy().copy()
    k[0] *= width
    k[1] *= height
    return k


def write_pfm(path: Path, depth: np.ndarray) -> None:
    height, width = depth.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"Pf\n{width} {height}\n-1.0\n".encode() + depth[::-1].astype("<f4").tobytes())


def camera_text(extrinsic: np.ndarray, intrinsic: np.ndarray) -> str:
    def rows(matrix: np.ndarray) -> str:
        return "\n".join(" ".join(f"{x:.9g}" for x in row) for row in matrix)

    return f"extrinsic\n{rows(extrinsic)}\n\nintrinsic\n{rows(intrinsic)}\n\n425.0 2.5\n"


def pair_text(numbers: Sequence[int]) -> str:
    """Every view with all others, nearest numbers first."""
    lines = [str(len(numbers))]
    for number in numbers:
        others = sorted((n for n in numbers if n != number), key=lambda n: abs(n - number))
        lines += [str(number), " ".join([str(len(others)), *(f"{n} {1000.0 - n}" for n in others)])]
    return "\n".join(lines) + "\n"


def write_blended(folder: Path, views: PosedViews) -> None:
    """One BlendedMVS scene, views numbered from 0."""
    count, _, height, width = views.images.shape
    for name in ("blended_images", "cams", "rendered_depth_maps"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        image = Image.fromarray(pixels(views, i))
        image.save(folder / "blended_images" / f"{i:08d}.jpg", quality=95, subsampling=0)
        Image.new("RGB", (width, height)).save(folder / "blended_images" / f"{i:08d}_masked.jpg")
        text = camera_text(camera_from_world(views, i), pixel_intrinsics(views, i, width, height))
        (folder / "cams" / f"{i:08d}_cam.txt").write_text(text)
        write_pfm(folder / "rendered_depth_maps" / f"{i:08d}.pfm", views.depth[i].numpy())
    (folder / "cams" / "pair.txt").write_text(pair_text(range(count)))


def write_dtu(folder: Path, scans: Sequence[str], views: PosedViews, numbers: Sequence[int]) -> None:
    """DTU as prepared for training: cameras of a quarter of the size, shared by all scans; millimetres."""
    _, _, height, width = views.images.shape
    cameras = folder / "Cameras" / "train"
    cameras.mkdir(parents=True)
    for i, number in enumerate(numbers):
        text = camera_text(camera_from_world(views, i, MILLIMETRES), pixel_intrinsics(views, i, 160, 128))
        (cameras / f"{number:08d}_cam.txt").write_text(text)
    (folder / "Cameras" / "pair.txt").write_text(pair_text(numbers))
    for scan in scans:
        images, depths = folder / "Rectified" / scan, folder / "Depths" / scan
        images.mkdir(parents=True)
        for i, number in enumerate(numbers):
            for light in range(7):
                picture = pixels(views, i) if light == 3 else np.zeros((height, width, 3), np.uint8)
                Image.fromarray(picture).save(images / f"rect_{number + 1:03d}_{light}_r5000.png")
            write_pfm(depths / f"depth_map_{number:04d}.pfm", MILLIMETRES * views.depth[i].numpy())
            mask = np.full((height, width), 255, np.uint8)
            mask[:4] = 0
            Image.fromarray(mask).save(depths / f"depth_visual_{number:04d}.png")


def write_scannet(folder: Path, views: PosedViews) -> None:
    """One exported scan; the depth camera sees a little less than the colour camera."""
    count, _, height, width = views.images.shape
    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True)
    color = np.eye(4)
    color[:3, :3] = pixel_intrinsics(views, 0, width, height)
    depth = np.eye(4)
    depth[:3, :3] = pixel_intrinsics(views, 0, width, height)
    depth[0, 2] += 2  # the same rays, two columns further to the right
    np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", color)
    np.savetxt(folder / "intrinsic" / "intrinsic_depth.txt", depth)
    for i in range(count):
        Image.fromarray(pixels(views, i)).save(folder / "color" / f"{i}.jpg", quality=95, subsampling=0)
        np.savetxt(folder / "pose" / f"{i}.txt", np.linalg.inv(camera_from_world(views, i)))
        shifted = np.roll(np.round(1000 * views.depth[i].numpy()).astype(np.uint16), 2, axis=1)
        Image.fromarray(shifted).save(folder / "depth" / f"{i}.png")


def chunk_entry(key: str, views: PosedViews) -> dict:
    count, _, _height, _width = views.images.shape
    rows, files = [], []
    for i in range(count):
        k = views.cameras.intrinsics[0, i].numpy()
        rows.append([k[0, 0], k[1, 1], k[0, 2], k[1, 2], 0, 0, *camera_from_world(views, i)[:3].flatten()])
        buffer = io.BytesIO()
        Image.fromarray(pixels(views, i)).save(buffer, "JPEG", quality=95, subsampling=0)
        files.append(torch.tensor(np.frombuffer(buffer.getvalue(), np.uint8).copy()))
    return {"key": key, "cameras": torch.tensor(np.array(rows), dtype=torch.float32), "images": files}


def write_chunks(folder: Path, scenes: Mapping[str, PosedViews]) -> None:
    """RE10K, ACID or DL3DV: one chunk with its index."""
    folder.mkdir(parents=True)
    torch.save([chunk_entry(key, views) for key, views in scenes.items()], folder / "000000.torch")
    (folder / "index.json").write_text(json.dumps(dict.fromkeys(scenes, "000000.torch")))
