"""Reading and writing weights: our safetensors, official Lightning checkpoints, hub repositories."""

import argparse
import json
import logging
import pickle
import re
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nas3r.io.atomic import atomic_path
from nas3r.io.json_files import as_object, parse_json
from nas3r.models import hub, presets
from nas3r.models.build import build
from nas3r.models.config import ModelConfig
from nas3r.models.nas3r import NAS3R
from nas3r.models.official.catalog import CARDS
from nas3r.models.official.tensors import translate
from nas3r.models.older_files import is_flat, renamed

_FORMAT = "nas3r"
DEFAULT = "default"  # the weights that ship, by name
_log = logging.getLogger(__name__)


def save(model: NAS3R, path: str | Path) -> None:
    """Writes weights and config as safetensors; the file appears under its name only when complete."""
    metadata = {"format": _FORMAT, "config": json.dumps(model.config.to_dict())}
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, metadata=metadata)
        temporary.chmod(mode)  # safetensors makes files that only their owner can read


def load(source: str | Path | None = None, device: torch.device | str | None = None) -> NAS3R:
    """A model in eval mode.

    Files are mapped into memory, not copied: on the CPU the weights live in the page cache, and a file must
    not be overwritten in place while its model lives (everything here replaces files instead).

    Args:
        source: One of: a weights file of ours (.safetensors); an official Lightning checkpoint (.ckpt); a hub
            repository "owner/name", or a file in it, "owner/name/file"; the name of published weights, as
            "nas3r-re10k" (`nas3r weights` lists them); the name of a preset, which gives random weights. None
            or "default" for the weights that ship with the package.
        device: Where to put it; default: CUDA if there is one, else the CPU.

    Raises:
        ValueError: If the file is damaged, unsafe, or does not fit.
        FileNotFoundError: If there is nothing under that name.
        ConnectionError: If a hub repository cannot be reached.
    """
    model = _load(source)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval()


def _load(source: str | Path | None) -> NAS3R:
    if source is not None and Path(source).is_file():
        return load_file(Path(source))
    name = DEFAULT if source is None else str(source)
    if name == DEFAULT:
        return load_file(_packaged())
    if name in presets.names():
        _log.warning("preset %r has no weights of its own: starting from random ones", name)
        return build(presets.get(name))
    if name in CARDS:
        return load_file(hub.download_official(CARDS[name]))
    if hub.looks_like_repository(name):
        return load_file(hub.download(name))
    raise FileNotFoundError(
        f"no weights file {name!r}, nor a preset of that name ({', '.join(presets.names())}) or published "
        f"weights ({', '.join(CARDS)}); {DEFAULT!r} are those that ship"
    )


def load_file(path: Path) -> NAS3R:
    """A model from a weights file of any kind, told apart by its content.

    Raises:
        ValueError: If the file is damaged, unsafe, or does not fit.
    """
    try:
        if zipfile.is_zipfile(path):
            return _from_official(path)
        return _from_safetensors(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _packaged() -> Path:
    path = Path(str(resources.files("nas3r"))) / "weights" / "default.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            "this installation has no default weights; name a weights file, or a preset for random weights"
        )
    return path


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header entries and tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"neither a readable safetensors file nor a torch checkpoint ({error})") from None


def _from_safetensors(path: Path) -> NAS3R:
    metadata, tensors = _read_safetensors(path)
    if metadata.get("format") != _FORMAT or "config" not in metadata:
        raise ValueError("holds no nas3r model (its header names no nas3r config)")
    try:
        values = as_object(parse_json(metadata["config"], "header"), "header")
    except ValueError:
        raise ValueError("the model config in its header is not a JSON object") from None
    return assemble(ModelConfig.from_dict(values), renamed(tensors) if is_flat(values) else tensors)


def _from_official(path: Path) -> NAS3R:
    translated = translate(read_state_dict(path))
    model = assemble(translated.config, translated.tensors)
    _log.info(
        "official %s checkpoint: %d tensors used, %d stored without use",
        translated.preset,
        len(translated.tensors),
        len(translated.unused),
    )
    return model


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a weights file, mapped into memory; nothing in the file is executed.

    Args:
        path: A safetensors file, or a file of `torch.save`: a state dict, or a dict with one under
            "state_dict" or "model".

    Raises:
        ValueError: If it is damaged, holds anything but plain data, or has no state dict.
    """
    if not zipfile.is_zipfile(path):
        return _read_safetensors(path)[1]
    _refuse_compressed(path)
    try:
        # MASt3R files carry their training options; a Namespace is a plain holder of attributes.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # the unpickler and the zip reader raise many kinds
        raise ValueError(f"not a readable checkpoint: {_why_unreadable(error)}") from None
    if isinstance(content, dict):
        content = next((content[k] for k in ("state_dict", "model") if k in content), content)
    if not isinstance(content, dict) or not content:
        raise ValueError("not a readable checkpoint: there is no state dict in it")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"not a readable checkpoint: {str(key)[:80]!r} is not a named tensor")
    return content


def _refuse_compressed(path: Path) -> None:
    """torch.save never compresses; a compressed record may be a thousand times larger than its file."""
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"not a readable checkpoint: {error}") from None
    if compressed:
        raise ValueError("not a readable checkpoint: a zip file with compressed records")


def _why_unreadable(error: Exception) -> str:
    forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
    if forbidden:
        return f"it asks for {forbidden[1]}, which is no plain data; nothing in it was executed"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors and plain values; nothing in it was executed"
    return (str(error).strip().splitlines() or [type(error).__name__])[0].split("  ")[0][:200]


def is_plain(tensor: Tensor | None) -> bool:
    """Whether a tensor is an ordinary one of floating-point numbers (a missing one is another matter)."""
    if tensor is None:
        return True
    return tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.is_meta


def assemble(config: ModelConfig, tensors: dict[str, Tensor]) -> NAS3R:
    """A model made of exactly these tensors, without allocating its weights a second time.

    Raises:
        ValueError: If tensors are missing, unexpected, no plain numbers, or of another shape than the config
            says.
    """
    with torch.device("meta"):
        model = build(config)
    expected = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    complaints = [f"{name} is missing" for name in expected if name not in tensors]
    complaints += [f"{name} is unexpected" for name in tensors if name not in expected]
    complaints += [f"{name} holds no plain numbers" for name in expected if not is_plain(tensors.get(name))]
    complaints += [
        f"{name} has shape {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if complaints:
        more = f", and {len(complaints) - 3} more" if len(complaints) > 3 else ""
        raise ValueError(f"its tensors do not fit its architecture: {', '.join(complaints[:3])}{more}")
    model.load_state_dict({k: v.float() for k, v in tensors.items()}, assign=True)
    return model
