"""Two parts of a scene that grew apart become one where they have placed the same points."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nas3r.geometry import Similarity, align_points
from nas3r.scenes.growing import Grown, Growth

_LEAST = 15  # points that agree
_LEAST_SHARE = 0.4  # of those that both parts have placed
_TRIES, _ROUNDS = 500, 3
_NEAR = 0.05  # of their distance from the cameras, up to which two places are the same


def merged(growth: Growth, first: Grown, second: Grown) -> Grown | None:
    """Both parts in the frame of the first one; None if too few points say how they lie to each other.

    Args:
        growth: Of the scene.
        first: One part.
        second: Another; of views in both, its place counts.
    """
    there, here = growth.points(second), growth.points(first)
    both = (there.number >= 0) & (here.number >= 0)
    source = there.state.points[there.number[both]]
    target = here.state.points[here.number[both]]
    if len(source) < _LEAST:
        return None
    away = np.linalg.norm(target[:, None] - first.state.centers[first.placed][None], axis=2).min(1)
    found = _similarity(source, target, _NEAR * away)
    if found is None:
        return None
    scale, turn, shift = found.scale.item(), found.rotation.numpy(), found.translation.numpy()
    state = first.state
    rotations, translations = state.rotations.copy(), state.translations.copy()
    mine = second.placed
    # A point p of the second part is at s Q p + d in the first: R p + t becomes (R Q^T) p' + s t - R Q^T d.
    rotations[mine] = second.state.rotations[mine] @ turn.T
    translations[mine] = scale * second.state.translations[mine] - rotations[mine] @ shift
    return Grown(replace(state, rotations=rotations, translations=translations), first.placed | mine)


def _similarity(
    source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"], near: Float[np.ndarray, "n"]
) -> Similarity | None:
    """What most points agree on (RANSAC over three of them)."""
    a, b, far = torch.from_numpy(source), torch.from_numpy(target), torch.from_numpy(near)
    random = np.random.default_rng(0)
    threes = torch.from_numpy(np.stack([random.choice(len(a), 3, replace=False) for _ in range(_TRIES)]))
    agree = _agreeing(align_points(a[threes], b[threes]), a, b, far)
    best = agree[int(agree.sum(1).argmax())]
    found = None
    for _ in range(_ROUNDS):
        if best.sum() < max(_LEAST, _LEAST_SHARE * len(a)):
            return None
        found = align_points(a[best], b[best])
        best = _agreeing(found, a, b, far)
    return found


def _agreeing(
    found: Similarity, source: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"], near: Float[Tensor, "n"]
) -> Bool[Tensor, "*k n"]:
    return (found.points(source) - target).norm(dim=-1) < near
