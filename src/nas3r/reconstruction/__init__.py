"""From images to cameras, depth and Gaussians on disk."""

from nas3r.reconstruction.pipeline import reconstruct
from nas3r.reconstruction.result import HeldOut, Reconstruction, Record
from nas3r.reconstruction.storage import DEFAULT_EXPORTS, EXPORTS

__all__ = [
    "DEFAULT_EXPORTS",
    "EXPORTS",
    "HeldOut",
    "Reconstruction",
    "Record",
    "reconstruct",
]
