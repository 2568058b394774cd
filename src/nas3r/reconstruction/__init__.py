"""From images to cameras, depth and Gaussians on disk.

`pipeline` calls the stages one after the other; `scene` is the plain value that they make, which `exports`,
`report` and `storage` read; `result` is that value with the network behind it. Public names are imported on
first use, so that the command line can read `options` without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas3r.reconstruction.options import ReconstructOptions
    from nas3r.reconstruction.pipeline import reconstruct
    from nas3r.reconstruction.record import Record
    from nas3r.reconstruction.result import Reconstruction
    from nas3r.reconstruction.scene import HeldOut, Scene
    from nas3r.reconstruction.storage import DEFAULT_EXPORTS, EXPORTS

_HOMES = {
    "DEFAULT_EXPORTS": "storage",
    "EXPORTS": "storage",
    "HeldOut": "scene",
    "ReconstructOptions": "options",
    "Reconstruction": "result",
    "Record": "record",
    "Scene": "scene",
    "reconstruct": "pipeline",
}

__all__ = [
    "DEFAULT_EXPORTS",
    "EXPORTS",
    "HeldOut",
    "ReconstructOptions",
    "Reconstruction",
    "Record",
    "Scene",
    "reconstruct",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nas3r.reconstruction' has no attribute {name!r}")
    return getattr(import_module(f"nas3r.reconstruction.{_HOMES[name]}"), name)
