"""Reading and writing weights."""

import json
import logging
import os
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nas3r.models import presets
from nas3r.models.config import ModelConfig
from nas3r.models.nas3r import NAS3R

_FORMAT = "nas3r"
_log = logging.getLogger(__name__)


def save(model: NAS3R, path: str | Path) -> None:
    """Writes weights and config as safetensors; the file appears under its name only when complete."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    metadata = {"format": _FORMAT, "config": json.dumps(model.config.to_dict())}
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    try:
        save_file(tensors, temporary, metadata=metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(source: str | Path | None = None, device: torch.device | str | None = None) -> NAS3R:
    """A model in eval mode.

    Args:
        source: A weights file of ours (.safetensors), or the name of a preset, which gives random weights.
            None for the weights that ship with the package.
        device: Where to put it; default: CUDA if there is one, else the CPU.

    Raises:
        ValueError: If the file is damaged or does not fit.
        FileNotFoundError: If there is nothing under that name.
    """
    model = _load(source)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval()


def _load(source: str | Path | None) -> NAS3R:
    if source is None:
        return _load_safetensors(_packaged())
    if Path(source).exists():
        return _load_safetensors(Path(source))
    if str(source) in presets.names():
        _log.warning("preset %r has no weights of its own: starting from random ones", source)
        return NAS3R(presets.get(str(source)))
    raise FileNotFoundError(
        f"no weights file {str(source)!r}, nor a preset of that name ({', '.join(presets.names())})"
    )


def _packaged() -> Path:
    path = Path(str(resources.files("nas3r"))) / "weights" / "default.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            "this installation has no default weights; name a weights file, or a preset for random weights"
        )
    return path


def _load_safetensors(path: Path) -> NAS3R:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path}: holds no nas3r model (its header names no nas3r config)")
    config = ModelConfig.from_dict(json.loads(metadata["config"]))
    with torch.device("meta"):
        model = NAS3R(config)
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path}: weights do not fit their config: {error}") from None
    return model
