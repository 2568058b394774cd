"""A model that looks across views, made of one that does not."""

from dataclasses import replace

from nas3r.models.build import build
from nas3r.models.config import ModelConfig
from nas3r.models.nas3r import NAS3R
from nas3r.models.poses.solved import Solved


def looking_across(model: NAS3R, like: ModelConfig) -> NAS3R:
    """The model with random weights to look across views with, if another network does and it does not.

    Args:
        model: Any.
        like: Of the other network.

    Raises:
        ValueError: If the model solves for no poses, but should look across.
    """
    across = like.poses.features.across if isinstance(like.poses, Solved) else None
    if across is None:
        return model
    poses = model.config.poses
    if not isinstance(poses, Solved):
        raise ValueError("looking across views: expected weights of a network that solves for poses")
    if poses.features.across is not None:
        return model
    features = replace(poses.features, across=across)
    made = build(replace(model.config, poses=replace(poses, features=features)))
    made.load_state_dict(model.state_dict() | {k: v for k, v in made.state_dict().items() if ".across." in k})
    return made
