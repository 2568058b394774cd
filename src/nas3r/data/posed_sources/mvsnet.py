"""The layout of MVSNet: DTU as it comes for training, BlendedMVS, and scenes converted to it.

Formats: github.com/YoYo000/MVSNet, github.com/YoYo000/BlendedMVS. A camera file holds a 4x4 world-to-camera
matrix (OpenCV axes) after the word `extrinsic`, a 3x3 matrix in pixels after `intrinsic`, and a line with the
range of depth. Pixel centres lie at halves, as here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from nas3r.data.posed_sources.depth_image import read_pfm
from nas3r.data.posed_sources.scene import Frame, ImageScene, keep_usable, pinhole, rigid
from nas3r.geometry import invert_pose
from nas3r.io.images import image_size

_CAMERA = re.compile(r"(\d+)_cam\.txt")
_IMAGE_FOLDERS = ("blended_images", "images")
_DEPTH_FOLDERS = ("rendered_depth_maps", "depths", "depth_maps")
_MASK_FOLDERS = ("masks", "mask")
_SUFFIXES = (".jpg", ".png", ".JPG")

# DTU as prepared for training: its cameras belong to images of a quarter of the size that is stored, and each
# view was taken under seven lights, of which the third is the one that novel views are evaluated on.
_DTU_CAMERA_SIZE = (160, 128)
_DTU_LIGHT = 3
_DTU_MASK_LEVEL = 10  # of 255: the mask is stored as a picture
# Published conversions divide millimetres by this; the published protocol's near plane depends on the unit.
_DTU_UNIT = 200.0


def is_mvsnet(folder: Path) -> bool:
    """Whether the folder is a scene of this layout: images and `cams/*_cam.txt`."""
    return any((folder / n).is_dir() for n in _IMAGE_FOLDERS) and bool(_camera_files(folder / "cams"))


def is_dtu(folder: Path) -> bool:
    """Whether the folder is DTU as prepared for training: `Cameras/` and `Rectified/`."""
    return (folder / "Rectified").is_dir() and bool(_camera_files(_dtu_cameras(folder)))


def read_mvsnet(folder: Path) -> ImageScene:
    """A scene with `cams/`, `pair.txt` and images in `images/` or, as in BlendedMVS, `blended_images/`.

    Depth, in the unit of the poses, is read from PFM files in `rendered_depth_maps/`, `depths/` or
    `depth_maps/`, 0 where unknown. A mask in `masks/` blanks depth where it is 0. BlendedMVS's `_masked`
    images, whose background is black, are not used: methods see the photo. Views have the number of their
    camera file. Those with a broken camera or without an image are counted and left out.

    Raises:
        ValueError: If no view can be used.
    """
    images = next(folder / name for name in _IMAGE_FOLDERS if (folder / name).is_dir())
    cameras = _camera_files(folder / "cams")
    make = [partial(_frame, folder, images, path) for path in cameras.values()]
    kept = keep_usable(make, str(folder), list(cameras))
    return ImageScene(folder.name, kept.frames, left_out=kept.left_out, pairs=_pairs(folder))


def _frame(folder: Path, images: Path, camera: Path) -> Frame:
    name = camera.name.removesuffix("_cam.txt")
    image = _image(images, name)
    depth = _first(folder, _DEPTH_FOLDERS, f"{name}.pfm")
    mask = _first(folder, _MASK_FOLDERS, f"{name}.png")
    pose = read_camera(camera)
    return Frame(
        image=image,
        world_from_camera=invert_pose(rigid(pose.extrinsic, str(camera))),
        intrinsics=pose.pinhole(),
        size=image_size(image) if image.is_file() else (1, 1),  # a missing image is dropped later
        depth=None if depth is None else _depth(depth, mask, 0),
    )


def _image(folder: Path, name: str) -> Path:
    return next((p for s in _SUFFIXES if (p := folder / f"{name}{s}").is_file()), folder / f"{name}.jpg")


def _first(folder: Path, places: tuple[str, ...], name: str) -> Path | None:
    return next((path for place in places if (path := folder / place / name).is_file()), None)


class DtuScenes:
    """The scans of DTU as prepared for training; a `PosedSource`.

    `Cameras/train/*_cam.txt` (or `Cameras/*_cam.txt`) are shared by the scans in `Rectified/scanN_train/`,
    whose images are `rect_NNN_3_r5000.png`: number 1 belongs to camera 0. Depth, if it is there, is
    `Depths/scanN_train/depth_map_NNNN.pfm` with `depth_visual_NNNN.png` as its mask. The unit is 200 mm, as
    in the published conversions to chunks. Scenes and views are named as the published index names them.

    Args:
        folder: That holds `Cameras` and `Rectified`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        scans = [path.name for path in (folder / "Rectified").iterdir() if path.is_dir()]
        self._scans = sorted(scans, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
        if not scans:
            raise ValueError(f"{folder / 'Rectified'}: holds no scan")

    def __len__(self) -> int:
        return len(self._scans)

    def scene_name(self, index: int) -> str:
        """The name of a scan, also of one that cannot be read."""
        return self._scans[index]

    def __getitem__(self, index: int) -> ImageScene:
        """One scan.

        Raises:
            ValueError: If none of its views can be used.
        """
        scan = self._scans[index]
        cameras = _camera_files(_dtu_cameras(self._folder))
        make = [partial(_dtu_frame, self._folder, scan, number, path) for number, path in cameras.items()]
        kept = keep_usable(make, f"{self._folder}, {scan}", list(cameras))
        pairs = _pairs(self._folder / "Cameras")
        return ImageScene(scan, kept.frames, left_out=kept.left_out, pairs=pairs)


def _dtu_cameras(folder: Path) -> Path:
    prepared = folder / "Cameras" / "train"
    return prepared if prepared.is_dir() else folder / "Cameras"


def _dtu_frame(folder: Path, scan: str, number: int, camera: Path) -> Frame:
    image = folder / "Rectified" / scan / f"rect_{number + 1:03d}_{_DTU_LIGHT}_r5000.png"
    depths = folder / "Depths" / scan
    depth = depths / f"depth_map_{number:04d}.pfm"
    mask = depths / f"depth_visual_{number:04d}.png"
    pose = read_camera(camera)
    extrinsic = pose.extrinsic.copy()
    extrinsic[:3, 3] /= _DTU_UNIT
    of_images = camera.parent.name != "train" and image.is_file()
    return Frame(
        image=image,
        world_from_camera=invert_pose(rigid(extrinsic, str(camera))),
        intrinsics=pose.pinhole(),
        size=image_size(image) if of_images else _DTU_CAMERA_SIZE,
        depth=_dtu_depth(depth, mask) if depth.is_file() else None,
    )


def _dtu_depth(path: Path, mask: Path) -> Callable[[], np.ndarray]:
    read = _depth(path, mask if mask.is_file() else None, _DTU_MASK_LEVEL)
    return lambda: read() / _DTU_UNIT


@dataclass(frozen=True)
class MvsnetCamera:
    """What a camera file says.

    Attributes:
        extrinsic: World to camera, OpenCV axes [4, 4].
        intrinsic: In pixels [3, 3].
    """

    extrinsic: np.ndarray
    intrinsic: np.ndarray

    def pinhole(self):
        """The intrinsics as a tensor.

        Raises:
            ValueError: If they are no finite numbers.
        """
        k = self.intrinsic
        return pinhole(k[0, 0], k[1, 1], k[0, 2], k[1, 2])


def read_camera(path: Path) -> MvsnetCamera:
    """A camera file; its range of depth is not needed.

    Raises:
        ValueError: If it is damaged.
    """
    words = path.read_text(errors="replace").split()
    try:
        start, middle = words.index("extrinsic") + 1, words.index("intrinsic") + 1
        extrinsic = np.array(words[start : start + 16], np.float64).reshape(4, 4)
        intrinsic = np.array(words[middle : middle + 9], np.float64).reshape(3, 3)
    except ValueError as error:
        raise ValueError(f"{path}: no camera file of MVSNet ({error})") from error
    return MvsnetCamera(extrinsic, intrinsic)


def _camera_files(folder: Path) -> dict[int, Path]:
    """Camera files by their number, ascending."""
    found = {int(m[1]): path for path in folder.glob("*_cam.txt") if (m := _CAMERA.fullmatch(path.name))}
    return dict(sorted(found.items()))


def _pairs(folder: Path) -> dict[int, list[int]]:
    """For each view the views that match it best, best first; empty without a readable `pair.txt`."""
    path = next((p for p in (folder / "pair.txt", folder / "cams" / "pair.txt") if p.is_file()), None)
    if path is None:
        return {}
    lines = [line.split() for line in path.read_text(errors="replace").splitlines()[1:] if line.strip()]
    pairs = {}
    for head, row in zip(lines[::2], lines[1::2]):
        try:
            # A row is: count, then number and score of each.
            pairs[int(head[0])] = [int(word) for word in row[1 : 1 + 2 * int(row[0]) : 2]]
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path}: expected a view, then its matches, got {row} ({error})") from error
    return pairs


def _depth(path: Path, mask: Path | None, level: int) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        depth = read_pfm(path)
        if mask is None:
            return depth
        try:
            with Image.open(mask) as image:
                small = image.convert("L").resize((depth.shape[1], depth.shape[0]), Image.Resampling.NEAREST)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{mask}: not a readable mask ({error})") from error
        return np.where(np.asarray(small) > level, depth, 0)

    return read
