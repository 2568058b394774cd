"""What results say about where they come from."""

import hashlib
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from nas3r.models import NAS3R


@dataclass(frozen=True)
class Provenance:
    """Origin of a result.

    Attributes:
        command: The command line.
        data: The data as given.
        weights: Name and hash of the weights; empty for baselines alone.
        version: Of this package.
        hardware: Processor, GPU and torch version.
    """

    command: str
    data: str
    weights: dict[str, str]
    version: str = field(default_factory=lambda: metadata.version("nas3r"))
    hardware: str = field(default_factory=lambda: describe_hardware())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def describe_hardware() -> str:
    """Processor, GPU and torch version in a line."""
    parts = [platform.machine(), f"{torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, f"torch {torch.__version__}", platform.system()])


def describe_weights(name: str | None, model: NAS3R) -> dict[str, str]:
    """Name of the weights, and the SHA-256 of their tensors.

    Files of equal weights may differ: the order of a safetensors header's entries is not fixed.
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return {"name": "default" if name is None else Path(name).name, "sha256": digest.hexdigest()}
