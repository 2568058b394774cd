"""Poses of further views among the views of a context."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry import Cameras, invert_pose, select_views, transform_points
from nas3r.matching.matches import PairedMatches, mean_agreement
from nas3r.matching.view_matcher import Features, ViewMatcher
from nas3r.solver.context import ContextSolution
from nas3r.solver.correspondences import calibrated
from nas3r.solver.pairs import PosedMatches, relative_poses, search_pairs
from nas3r.solver.resection import Sightings, resect
from nas3r.solver.view_graph import edge_costs

_MOST_REFERENCES = 3  # views of the context that a target is located by


@dataclass(frozen=True)
class TargetSolution:
    """What matches say of further views.

    Attributes:
        pairs: Each view matched with the view of the context that suits it best.
        more: Matches with further views of the context.
    """

    pairs: PosedMatches
    more: tuple[PairedMatches, ...] = ()


def solve_targets(
    matcher: ViewMatcher,
    features: Features,
    intrinsics: Float[Tensor, "b t 3 3"],
    context: ContextSolution,
    *,
    any_pair: bool,
    directions: int,
) -> TargetSolution:
    """Matches views with views of a context, and solves for the best pair of each.

    Args:
        matcher: Finds the matches.
        features: Of the views.
        intrinsics: Of the views, as far as known.
        context: What was found about the context.
        any_pair: Whether they may be matched with any view of the context; else with the first one only.
        directions: Number of directions of the translation that are tried for each pair.
    """
    references = torch.zeros(*intrinsics.shape[:2], 1, dtype=torch.long, device=intrinsics.device)
    coarse = None
    if any_pair:
        coarse = matcher.match_coarsely(features, context.features)
        costs = edge_costs(mean_agreement(coarse)) + context.path_costs[:, None]
        references = costs.topk(min(_MOST_REFERENCES, costs.shape[-1]), largest=False).indices
    pairs = search_pairs(
        matcher,
        features,
        intrinsics,
        context.features,
        context.intrinsics,
        references[..., 0],
        coarse,
        directions=directions,
    )
    more = tuple(
        PairedMatches(matcher.match(features, context.features, r, coarse), r)
        for r in references[..., 1:].unbind(-1)
    )
    return TargetSolution(pairs, more)


def target_poses(
    solution: TargetSolution,
    intrinsics: Float[Tensor, "b t 3 3"],
    context: Cameras,
    depth: Float[Tensor, "b v h w"],
) -> tuple[Float[Tensor, "b t 4 4"], Float[Tensor, "b t 4 4"]]:
    """World-from-camera poses of the references, and of the views in their frames.

    Args:
        solution: From `solve_targets`.
        intrinsics: Of the views.
        context: Cameras of the context.
        depth: z-depth of the context, in the unit of its poses.
    """
    references = select_views(context.world_from_camera, solution.pairs.references)
    relative = relative_poses(solution.pairs, intrinsics, context.intrinsics, depth)
    if solution.more:
        every = (solution.pairs, *solution.more)
        poses = _resected(every, intrinsics, context, depth, references @ relative)
        relative = invert_pose(references) @ poses
    return references, relative


def _resected(
    pairs: Sequence[PairedMatches],
    intrinsics: Float[Tensor, "b t 3 3"],
    context: Cameras,
    depth: Float[Tensor, "b v h w"],
    start: Float[Tensor, "b t 4 4"],
) -> Float[Tensor, "b t 4 4"]:
    """Poses of views from where they see what the depth maps of several views of the context show."""
    parts = []
    for one in pairs:
        poses = select_views(context.world_from_camera, one.references)
        seen = calibrated(one, intrinsics, context.intrinsics)
        z = one.matches.look_up(select_views(depth, one.references))[..., None]
        points = transform_points(poses, z * F.pad(seen.points, (0, 1), value=1.0))
        origins = poses[..., None, :3, 3].expand_as(points)
        parts.append(Sightings(points, origins, seen.rays[..., :2], seen.covariances, seen.weights))
    names = [f.name for f in fields(Sightings)]
    every = Sightings(**{name: torch.cat([getattr(part, name) for part in parts], 2) for name in names})
    return resect(every, start)
