"""The network: from images to cameras, depth and Gaussians. `nas3r` is the published method, whole."""

from nas3r.models import presets
from nas3r.models.build import build
from nas3r.models.checkpoints import load, save
from nas3r.models.config import ModelConfig
from nas3r.models.inference import Inferred, infer
from nas3r.models.nas3r import NAS3R, Context
from nas3r.models.prediction import Prediction
from nas3r.models.priors import load_prior

__all__ = [
    "NAS3R",
    "Context",
    "Inferred",
    "ModelConfig",
    "Prediction",
    "build",
    "infer",
    "load",
    "load_prior",
    "presets",
    "save",
]
