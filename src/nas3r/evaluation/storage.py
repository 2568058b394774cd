"""Finished parts of an evaluation on the disk, so that an interrupted one can go on."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from nas3r.io import json_files
from nas3r.io.atomic import atomic_path


def open_folder(out: Path, settings: dict[str, Any], overwrite: bool) -> tuple[Path, Path]:
    """Folders of finished parts and pictures, made if missing.

    Raises:
        ValueError: If there are results of other settings, unless they are to be overwritten.
    """
    parts, pictures = out / "parts", out / "pictures"
    parts.mkdir(parents=True, exist_ok=True)
    pictures.mkdir(exist_ok=True)
    marker = parts / "settings.json"
    settings = json.loads(json.dumps(settings))
    if overwrite:
        for file in [*parts.glob("*.json"), *pictures.glob("*.png")]:
            file.unlink()
    elif marker.is_file():
        found = read_json(marker)
        if found != settings:
            differing = [k for k in settings if not isinstance(found, dict) or found.get(k) != settings[k]]
            raise ValueError(
                f"{out} holds results of other settings ({', '.join(differing) or 'damaged'}); "
                "choose another folder, or --overwrite"
            )
    write_json(marker, settings)
    return parts, pictures


def plain(value: Any) -> Any:
    """Values as JSON knows them: tensors become lists, numbers that are not finite None."""
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def read_json(path: Path) -> Any:
    """Content of a file, None if it is missing or damaged."""
    try:
        return json_files.read_json(path)
    except (OSError, ValueError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Writes a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False))
