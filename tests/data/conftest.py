"""Small clips of several formats, whose frames say their number."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from numbered_clips import add_file, jpeg, numbered

from nas3r.io.images import save_image


@pytest.fixture
def frame_folders(tmp_path: Path) -> Path:
    """Five clips of 12 frames in folders."""
    for clip in range(5):
        folder = tmp_path / "folders" / f"clip{clip}"
        folder.mkdir(parents=True)
        for frame in range(12):
            save_image(folder / f"{frame}.png", numbered(clip, frame))
    return tmp_path / "folders"


@pytest.fixture
def chunks(tmp_path: Path) -> Path:
    """Three chunks of two scenes with 10 images and cameras."""
    folder = tmp_path / "chunks"
    folder.mkdir()
    index = {}
    for chunk in range(3):
        scenes = []
        for clip in (2 * chunk, 2 * chunk + 1):
            files = [torch.tensor(list(jpeg(numbered(clip, f))), dtype=torch.uint8) for f in range(10)]
            scenes.append(
                {
                    "url": "",
                    "key": f"scene{clip}",
                    "timestamps": torch.arange(10),
                    "cameras": torch.zeros(10, 18),
                    "images": files,
                }
            )
            index[f"scene{clip}"] = f"{chunk:06d}.torch"
        torch.save(scenes, folder / f"{chunk:06d}.torch")
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def write_shards(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of tar shards with 8 frames a clip."""

    def write(shards: int = 3, clips: int = 2, index: bool = True, style: str = "{clip}.{frame}.jpg") -> Path:
        folder = tmp_path / "shards"
        folder.mkdir(exist_ok=True)
        entries = []
        for shard in range(shards):
            names = [f"clip{shard * clips + i}" for i in range(clips)]
            with tarfile.open(folder / f"s{shard}.tar", "w") as tar:
                for i, name in enumerate(names):
                    for frame in (0, 1, 10, 11, 2, 3, 4, 5):  # a frame's place follows from its number
                        data = jpeg(numbered(shard * clips + i, frame))
                        add_file(tar, style.format(clip=name, frame=frame), data)
                    add_file(
                        tar, f"{name}.json", json.dumps({"travel": [0.1 * k for k in range(8)]}).encode()
                    )
            entries.append({"name": f"s{shard}.tar", "clips": [{"name": n, "frames": 8} for n in names]})
        if index:
            (folder / "index.json").write_text(json.dumps({"shards": entries}))
        return folder

    return write
