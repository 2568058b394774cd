"""Cameras, depth and 3D Gaussians from unposed photos or video, trained from pixels alone.

Public names are imported on first use, so that `import nas3r` (and the command line's `--help`) stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas3r.gaussians import Gaussians
    from nas3r.geometry import Cameras
    from nas3r.models import NAS3R, Prediction, load, save
    from nas3r.reconstruction import Reconstruction, ReconstructOptions, reconstruct
    from nas3r.render import Rendering, render

__version__ = "0.2.0"

_HOMES = {
    "Cameras": "nas3r.geometry",
    "Gaussians": "nas3r.gaussians",
    "NAS3R": "nas3r.models",
    "Prediction": "nas3r.models",
    "ReconstructOptions": "nas3r.reconstruction",
    "Reconstruction": "nas3r.reconstruction",
    "Rendering": "nas3r.render",
    "load": "nas3r.models",
    "reconstruct": "nas3r.reconstruction",
    "render": "nas3r.render",
    "save": "nas3r.models",
}

__all__ = [
    "NAS3R",
    "Cameras",
    "Gaussians",
    "Prediction",
    "ReconstructOptions",
    "Reconstruction",
    "Rendering",
    "load",
    "reconstruct",
    "render",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nas3r' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
