"""`build`: the model that a config asks for."""

from nas3r.models.ablations.unmasked import UnmaskedNAS3R
from nas3r.models.config import ModelConfig
from nas3r.models.nas3r import NAS3R
from nas3r.models.official.joint_camera import JointCameraNAS3R


def build(config: ModelConfig) -> NAS3R:
    """A model with random weights: the method, its unmasked ablation, or an official variant."""
    if not config.masked:
        return UnmaskedNAS3R(config)
    return JointCameraNAS3R(config) if config.quirks.joint_camera else NAS3R(config)
