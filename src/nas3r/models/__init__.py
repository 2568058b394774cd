"""The network: from images to cameras, depth and Gaussians."""

from nas3r.models import presets
from nas3r.models.checkpoints import load
from nas3r.models.config import ModelConfig
from nas3r.models.nas3r import NAS3R, Context, Prediction
from nas3r.models.priors import load_prior

__all__ = ["NAS3R", "Context", "ModelConfig", "Prediction", "load", "load_prior", "presets"]
