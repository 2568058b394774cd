"""Synthetic clips as files: images for training, and apart from them the cameras."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from nas3r.data.posed import PosedViews
from nas3r.data.shards.writer import ShardWriter
from nas3r.data.sources.tars import INDEX_NAME
from nas3r.data.synthetic import SyntheticConfig, sample_paths, sample_worlds
from nas3r.data.synthetic.sources import SyntheticScene, training_seed
from nas3r.io.atomic import remove_leftovers, write_text
from nas3r.io.images import encode_jpeg, save_image
from nas3r.io.json_files import read_object, reading_fields
from nas3r.io.nerfstudio import write_transforms
from nas3r.io.photo_camera import PhotoCamera
from nas3r.memory import available_memory, require_memory

FRAMES, CAMERAS, OPTIONS_NAME = "frames", "cameras", "synthetic.json"
_CLIPS_PER_SHARD = 64
_SMALLEST = 8  # pixels a side
_BYTES_PER_PIXEL = 40  # of each frame of a clip, which is made whole; measured at 256 and 512 pixels


@dataclass(frozen=True)
class SynthesisOptions:
    """What is written.

    Attributes:
        seed: Of the whole collection.
        clips: Their number.
        height: Of the images in pixels.
        width: Likewise.
        layout: "folders" of PNG files, or tar "shards" of JPEG files.
        quality: Of the JPEG files.
        config: Knobs of the worlds.
    """

    seed: int = 0
    clips: int = 100
    height: int = 128
    width: int = 128
    layout: Literal["folders", "shards"] = "folders"
    quality: int = 95
    config: SyntheticConfig = field(default_factory=SyntheticConfig)

    def __post_init__(self) -> None:
        if self.clips < 1 or min(self.height, self.width) < _SMALLEST:
            raise ValueError(
                f"expected at least one clip of at least {_SMALLEST} x {_SMALLEST} pixels, got {self}"
            )


def write_clips(
    out: Path,
    options: SynthesisOptions,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
) -> int:
    """Renders synthetic clips and writes them.

    Images go to `frames/CLIP/` or into shards, cameras to `cameras/CLIP/transforms.json` (nerfstudio), which
    points to the images. Clips that are there already are not made again.

    Args:
        out: Folder.
        options: What is written.
        device: Where to render.
        progress: Called with (what, done, total).

    Returns:
        Number of clips made now.

    Raises:
        ValueError: The folder holds clips made with other options.
        OSError: The folder cannot be written to, or the disk is full.
        InsufficientMemoryError: A clip would not fit into memory.
    """
    _require_fit(options)
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    _claim(out, options)
    tell = progress or (lambda what, done, total: None)
    write = _write_folder_clips if options.layout == "folders" else _write_shard_clips
    made = 0
    for first in range(0, options.clips, _CLIPS_PER_SHARD):
        numbers = range(first, min(first + _CLIPS_PER_SHARD, options.clips))
        made += write(out, options, numbers, device, lambda done: tell("clips", done, options.clips))
    return made


def _require_fit(options: SynthesisOptions) -> None:
    """Raises InsufficientMemoryError, with the size that would fit, if a clip would not."""
    pixels = options.height * options.width
    needed = float(_BYTES_PER_PIXEL) * options.config.frames * pixels
    free = available_memory()
    if free is None or needed <= free:
        return
    scale = math.sqrt(free / needed)
    width, height = int(scale * options.width), int(scale * options.height)
    advice = (
        f"--size {width} {height} would fit" if min(width, height) >= _SMALLEST else "choose fewer --frames"
    )
    what = f"a clip of {options.config.frames} frames of {options.width} x {options.height} pixels"
    require_memory(needed, what, advice)


def clip_name(number: int) -> str:
    """Name of a clip in files."""
    return f"world{number:07d}"


def _claim(out: Path, options: SynthesisOptions) -> None:
    """Makes sure that the folder holds nothing made with other options (another number of clips is fine)."""
    described = json.loads(json.dumps(asdict(options)))
    path = out / OPTIONS_NAME
    if path.is_file():
        earlier, now = _flat(read_object(path)), _flat(described)
        differing = [key for key in now if key != "clips" and earlier.get(key) != now[key]]
        if differing:
            raise ValueError(f"{out}: holds clips that were made with other {', '.join(differing)}")
    write_text(path, json.dumps(described, indent=1))


def _flat(described: dict[str, Any]) -> dict[str, Any]:
    config = described.get("config", {})
    return {**described, **(config if isinstance(config, dict) else {}), "config": None}


def _write_folder_clips(
    out: Path,
    options: SynthesisOptions,
    numbers: range,
    device: torch.device | str,
    tell: Callable[[int], None],
) -> int:
    made = 0
    for number in numbers:
        tell(number)
        name = clip_name(number)
        if (out / CAMERAS / name / "transforms.json").is_file():
            continue
        views = _render(options, number, device)
        folder = out / FRAMES / name
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        files = [f"{i:06d}.png" for i in range(len(views.images))]
        for file, image in zip(files, _as_bytes(views)):
            save_image(folder / file, image)
        _write_cameras(out, name, views, [f"../../{FRAMES}/{name}/{file}" for file in files])
        made += 1
    return made


def _write_shard_clips(
    out: Path,
    options: SynthesisOptions,
    numbers: range,
    device: torch.device | str,
    tell: Callable[[int], None],
) -> int:
    prefix = f"worlds{numbers.start:07d}"
    index = read_object(out / INDEX_NAME) if (out / INDEX_NAME).is_file() else {"shards": []}
    with reading_fields(str(out / INDEX_NAME), "index of shards"):
        done = {shard["name"]: len(shard["clips"]) for shard in index["shards"]}
    if done.get(f"{prefix}-000.tar") == len(numbers):
        return 0
    with ShardWriter(out, prefix, megabytes=10**9) as writer:  # one tar, whatever its size
        for number in numbers:
            tell(number)
            name, views = clip_name(number), _render(options, number, device)
            frames = [encode_jpeg(image, options.quality) for image in _as_bytes(views)]
            writer.add(name, frames, {"width": options.width, "height": options.height})
            files = [f"{name}.{i:06d}.jpg" for i in range(len(frames))]
            _write_cameras(out, name, views, files)
    others = [shard for shard in index["shards"] if shard["name"] != writer.shards[0]["name"]]
    shards = sorted(others + writer.shards, key=lambda shard: shard["name"])
    write_text(out / INDEX_NAME, json.dumps({"shards": shards}))
    return len(numbers)


def _render(options: SynthesisOptions, number: int, device: torch.device | str) -> PosedViews:
    worlds = sample_worlds([training_seed(options.seed, number)], options.config)
    path = sample_paths(worlds, config=options.config)
    scene = SyntheticScene(clip_name(number), worlds.to(device), path.to(device), options.config)
    return scene.read(range(options.config.frames), options.height, options.width)


def _as_bytes(views: PosedViews) -> np.ndarray:
    images = (views.images * 255 + 0.5).clamp(0, 255).to(torch.uint8)
    return images.permute(0, 2, 3, 1).cpu().numpy()


def _write_cameras(out: Path, name: str, views: PosedViews, files: list[str]) -> None:
    height, width = views.images.shape[-2:]
    scale = np.array([[width], [height], [1]])
    remove_leftovers(out / CAMERAS / name)
    cameras = [
        PhotoCamera(file, width, height, intrinsics * scale, pose)
        for file, intrinsics, pose in zip(
            files,
            views.cameras.intrinsics[0].double().cpu().numpy(),
            views.cameras.world_from_camera[0].double().cpu().numpy(),
        )
    ]
    write_transforms(out / CAMERAS / name / "transforms.json", cameras)
