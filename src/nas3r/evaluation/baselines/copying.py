"""Novel views without any geometry: repeat or average the context."""

import torch
from jaxtyping import Float
from torch import Tensor


def nearest_context(
    context: Float[Tensor, "c 3 h w"], targets: Float[Tensor, "t 3 h w"]
) -> Float[Tensor, "t 3 h w"]:
    """For each target the context image with the smallest squared error to it.

    Nearest is judged by the target itself, so this is the best that copying can do, whatever the rule.
    """
    error = (targets[:, None] - context[None]).square().flatten(2).mean(-1)
    return context[error.argmin(1)]


def mean_context(
    context: Float[Tensor, "c 3 h w"], targets: Float[Tensor, "t 3 h w"]
) -> Float[Tensor, "t 3 h w"]:
    """The mean of the context images, for every target."""
    return context.mean(0).expand(len(targets), -1, -1, -1)


def identity_poses(count: int) -> Float[Tensor, "v 4 4"]:
    """No motion at all."""
    return torch.eye(4).repeat(count, 1, 1)
