"""A reconstruction as a folder, and back.

Always written: `scene.ply`, `cameras.json`, `images/` (upright photos), `depth/` and `reconstruction.json`,
from which `read_scene` restores the scene, `sparse.npz` if cameras were adjusted to points, and the weights
if they were adapted. The rest are exports for people and other tools.
"""

import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from nas3r.adjustment import Landmarks
from nas3r.geometry import Cameras
from nas3r.io.atomic import write_text
from nas3r.io.cameras import read_cameras, write_cameras
from nas3r.io.colmap import SparsePoints
from nas3r.io.depth import DepthMap, read_depth_npz
from nas3r.io.images import Resize, load_image
from nas3r.io.json_files import read_object, reading_fields
from nas3r.io.ply import read_ply, write_ply
from nas3r.io.sparse import read_sparse, write_sparse
from nas3r.models import NAS3R, save
from nas3r.reconstruction.exports import EXPORTERS, write_depth
from nas3r.reconstruction.findings import Finding
from nas3r.reconstruction.inputs import Unreadable
from nas3r.reconstruction.output import FORMAT, MANIFEST, written_files
from nas3r.reconstruction.photos import View
from nas3r.reconstruction.progress import Progress, silent
from nas3r.reconstruction.record import Record
from nas3r.reconstruction.scene import Scene
from nas3r.reconstruction.views import to_tensor

EXPORTS = tuple(EXPORTERS)
DEFAULT_EXPORTS = ("colmap", "points", "nerfstudio", "video", "report")

ADAPTED_WEIGHTS = "adapted.safetensors"
SPARSE = "sparse.npz"


def check_exports(names: Sequence[str]) -> list[str]:
    """The names in the order they are written.

    Raises:
        ValueError: For an unknown name.
        ModuleNotFoundError: If a package is missing that one of them needs.
    """
    names = list(EXPORTS) if "all" in names else list(names)
    if unknown := [name for name in names if name not in EXPORTS]:
        raise ValueError(f"export {unknown[0]!r}: expected some of {', '.join(EXPORTS)}, or all")
    if "video" in names and importlib.util.find_spec("av") is None:
        raise ModuleNotFoundError('the export "video" needs pip install "nas3r[video]"')
    if "nerfstudio" in names and "points" in names:
        names.remove("points")  # nerfstudio's start is the same file
    return [name for name in EXPORTS if name in names]


def available_exports() -> list[str]:
    """The default exports that work in this installation."""
    with_video = importlib.util.find_spec("av") is not None
    return [name for name in DEFAULT_EXPORTS if name != "video" or with_video]


def write_scene(
    scene: Scene,
    folder: Path,
    exports: Sequence[str],
    *,
    adapted: NAS3R | None = None,
    on_progress: Progress = silent,
) -> Scene:
    """Writes a scene into an existing, empty folder.

    Args:
        scene: The scene; it stays as it is.
        folder: Where to.
        exports: From `check_exports`.
        adapted: A network that was adapted to the scene, whose weights are written too.
        on_progress: Called with (what, done, total).

    Returns:
        The scene as it is written: its record has the time of each export, and names the adapted weights.
    """
    record = replace(scene.record, seconds=dict(scene.record.seconds))
    if adapted is not None:
        record = replace(record, weights=ADAPTED_WEIGHTS)
        save(adapted, folder / ADAPTED_WEIGHTS)
    scene = replace(scene, record=record)
    steps: list[tuple[str, Callable[[Scene, Path], None]]] = [("scene and photos", _write_core)]
    steps += [(name, EXPORTERS[name]) for name in exports if name != "report"]
    if "report" in exports:  # last: it tells how long the others took
        steps.append(("report", EXPORTERS["report"]))
    for done, (name, write) in enumerate(steps):
        on_progress(f"writing {name}", done, len(steps))
        start = time.perf_counter()
        write(scene, folder)
        record.seconds[f"write {name}"] = round(time.perf_counter() - start, 3)
    _write_manifest(scene, folder)
    on_progress("writing", len(steps), len(steps))
    return scene


def _write_core(scene: Scene, folder: Path) -> None:
    write_ply(folder / "scene.ply", scene.gaussians)
    write_cameras(folder / "cameras.json", scene.photo_cameras)
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for view in scene.views:
        view.export(images)
    write_depth(scene, folder / "depth")
    if scene.sparse is not None and scene.landmarks is not None:
        write_sparse(folder / SPARSE, scene.sparse, scene.landmarks.descriptors)


def _write_manifest(scene: Scene, folder: Path) -> None:
    from nas3r import __version__

    network = scene.network_cameras if scene.record.refined is not None else None
    document = {
        "format": FORMAT,
        "version": 1,
        "nas3r": __version__,
        "size": list(scene.size),
        "network_size": list(scene.network_size or scene.size),
        "views": [
            {
                "label": view.label,
                "name": view.name,
                "source": view.origin,
                "sharpness": round(view.sharpness, 4),
            }
            for view in scene.views
        ],
        "held_out": [] if scene.held_out is None else [view.label for view in scene.held_out.views],
        "unreadable": [asdict(item) for item in scene.unreadable],
        "record": asdict(scene.record),
        "files": [*written_files(folder), MANIFEST],
        "network_cameras": None
        if network is None
        else {
            "world_from_camera": network.world_from_camera[0].tolist(),
            "intrinsics": network.intrinsics[0].tolist(),
        },
    }
    write_text(folder / MANIFEST, json.dumps(document, indent=2) + "\n")


def read_scene(folder: Path) -> Scene:
    """Reads what `write_scene` wrote.

    The held-out views are not part of a folder; what they measured is in the record.

    Raises:
        ValueError: If a file is missing, damaged, or not ours.
        FileNotFoundError: If there is no result in the folder.
    """
    document = _manifest(folder)
    with reading_fields(str(folder / MANIFEST), "record of a result"):
        width, height = (int(side) for side in document["size"])
        cameras = read_cameras(folder / "cameras.json")
        views, images, maps = [], [], []
        for entry, camera in zip(document["views"], cameras, strict=True):
            file = folder / "images" / _plain_name(entry["name"])
            maps.append(_depth(folder, file.stem, height, width))
            resize = Resize(camera.width, camera.height, width, height, exact=True)
            images.append(to_tensor(resize.apply(load_image(file))))
            views.append(
                View(
                    entry["label"],
                    file.name,
                    file,
                    None,
                    resize,
                    float(entry["sharpness"]),
                    origin=entry.get("source"),
                )
            )
        sparse, landmarks = _sparse(folder, len(views))
        intrinsics = [v.resize.apply_intrinsics(c.intrinsics) for v, c in zip(views, cameras)]
        return Scene(
            cameras=_cameras([camera.world_from_camera for camera in cameras], intrinsics),
            depth=torch.from_numpy(np.stack([m.depth for m in maps])),
            confidence=_confidence(maps),
            gaussians=read_ply(folder / "scene.ply"),
            images=torch.stack(images),
            views=views,
            held_out=None,
            record=_record(document["record"], folder),
            unreadable=[Unreadable(**item) for item in document["unreadable"]],
            network_cameras=_network_cameras(document["network_cameras"]),
            network_size=(int(document["network_size"][0]), int(document["network_size"][1])),
            sparse=sparse,
            landmarks=landmarks,
        )


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no nas3r result there (it has no {MANIFEST})")
    document = read_object(path)
    if document.get("format") != FORMAT or document.get("version") != 1:
        raise ValueError(f"{path}: not a {FORMAT} of version 1")
    return document


def _depth(folder: Path, stem: str, height: int, width: int) -> DepthMap:
    """A depth map; its size is what is stored, so that a size which somebody made up is found out by it."""
    path = folder / "depth" / f"{stem}.npz"
    read = read_depth_npz(path)
    depth = read.depth
    if depth.shape != (height, width):
        raise ValueError(
            f"{path}: expected depth of {width} x {height}, got {depth.shape[1]} x {depth.shape[0]}"
        )
    return read


def _confidence(maps: Sequence[DepthMap]) -> torch.Tensor | None:
    known = [m.confidence for m in maps if m.confidence is not None]
    return torch.from_numpy(np.stack(known)) if len(known) == len(maps) else None


def _sparse(folder: Path, views: int) -> tuple[SparsePoints | None, Landmarks | None]:
    """The points that cameras were adjusted to, if they were."""
    path = folder / SPARSE
    if not path.exists():
        return None, None
    points, descriptors = read_sparse(path)
    if len(points.view) and points.view.max() >= views:
        raise ValueError(f"{path}: expected {views} views, got a point seen by view {points.view.max() + 1}")
    return points, Landmarks(points.positions, points.point, descriptors)


def _plain_name(name: str) -> str:
    """A file name that cannot lead out of its folder."""
    if PurePosixPath(name).name != name or "\\" in name or name in ("", ".", ".."):
        raise ValueError(f"{MANIFEST}: expected a plain file name, got {name!r}")
    return name


def _record(values: dict[str, Any], folder: Path) -> Record:
    findings = [Finding(**item) for item in values["findings"]]
    record = Record(**{**values, "findings": findings})
    if record.weights == ADAPTED_WEIGHTS:
        return replace(record, weights=str(folder / ADAPTED_WEIGHTS))
    return record


def _cameras(poses: list[np.ndarray], intrinsics: list[np.ndarray]) -> Cameras:
    stacked = (torch.from_numpy(np.stack(matrices)).float()[None] for matrices in (poses, intrinsics))
    return Cameras(*stacked)


def _network_cameras(values: dict[str, Any] | None) -> Cameras | None:
    if values is None:
        return None
    return Cameras(torch.tensor([values["world_from_camera"]]), torch.tensor([values["intrinsics"]]))
