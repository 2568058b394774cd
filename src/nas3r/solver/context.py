"""Poses, focal length and coarse depth of the views of a context, from matches alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry import Cameras, make_pose, nearest_others
from nas3r.matching.matches import Matches, PairedMatches, mean_agreement
from nas3r.matching.view_matcher import Features, ViewMatcher
from nas3r.solver.all_views import MatchedViews, adjust_poses
from nas3r.solver.correspondences import calibrated, scale_focal
from nas3r.solver.pairs import (
    PosedMatches,
    calibrate_pairs,
    pose_between,
    reversed_pair,
    search_pairs,
)
from nas3r.solver.triangulation import fused_depth, triangulated_depth
from nas3r.solver.view_graph import chain_poses, edge_costs, shortest_paths

_MOST_PAIRS = 8  # other views that a view is matched with where all are solved for together
_SMOOTHING = 3.0  # cells


@dataclass(frozen=True)
class ContextSolution:
    """What matches say of the views of a context.

    Attributes:
        features: What other views are compared with.
        pairs: All views, each matched with another: the first with one that was matched with it, the others
            with the next on their way to the first.
        intrinsics: Of the views, as far as known then.
        focal_scale: How much longer their focal length is than assumed, if matches were asked.
        path_costs: Costs of their ways to the first view, see `nas3r.solver.view_graph`.
        log_depth: Logarithm of a smooth depth map of every view, a value for each match.
    """

    features: Features
    pairs: PosedMatches
    intrinsics: Float[Tensor, "b v 3 3"]
    focal_scale: Float[Tensor, "b"] | None
    path_costs: Float[Tensor, "b v"]
    log_depth: Float[Tensor, "b v gh gw"]


def solve_context(
    matcher: ViewMatcher,
    features: Features,
    intrinsics: Float[Tensor, "b v 3 3"],
    *,
    calibrate: bool,
    any_pair: bool,
    directions: int,
) -> ContextSolution:
    """Matches views along short ways to the first, solves for each pair, then for all views at once.

    Args:
        matcher: Finds the matches.
        features: Of the views.
        intrinsics: Known ones, or assumed ones to start from.
        calibrate: Whether the focal length, one for all views, is not known but a guess.
        any_pair: Whether a view may be matched with any other; else with the first one only.
        directions: Number of directions of the translation that are tried for each pair.
    """
    b, v = features[0].shape[:2]
    costs, coarse, of_first, of_others = features[0].new_ones(b, v, v), None, None, None
    if v > 2 and any_pair:
        coarse = matcher.match_coarsely(features, features)
        costs = edge_costs(mean_agreement(coarse))
        of_first, of_others = ([m.views(views) for m in coarse] for views in (slice(1), slice(1, None)))
    references, path_costs = shortest_paths(costs)
    others = tuple(x[:, 1:] for x in features)
    pairs = search_pairs(
        matcher,
        others,
        intrinsics[:, 1:],
        features,
        intrinsics,
        references,
        of_others,
        directions=directions,
    )
    focal_scale = None
    if calibrate:
        focal_scale, pairs = calibrate_pairs(pairs, intrinsics)
        intrinsics = scale_focal(intrinsics, focal_scale)
    # The first view is matched with the nearest of those that were matched with it.
    partner = torch.where(references == 0, path_costs[:, 1:], torch.inf).argmin(-1, keepdim=True) + 1
    pairs = PosedMatches.cat([reversed_pair(matcher, features, pairs, partner, of_first), pairs])
    log_depth, lengths = triangulated_depth(pairs, intrinsics, *_match_grid(matcher, features))
    if coarse is not None:
        every_pair = _match_neighbours(matcher, features, coarse, costs)
        pairs, factor, log_depth = _adjust(
            matcher, features, pairs, lengths, every_pair, intrinsics, calibrate
        )
        intrinsics = scale_focal(intrinsics, factor)
        focal_scale = None if focal_scale is None else focal_scale * factor
    return ContextSolution(features, pairs, intrinsics, focal_scale, path_costs, log_depth)


def _match_neighbours(
    matcher: ViewMatcher, features: Features, coarse: Sequence[Matches], costs: Float[Tensor, "b v v"]
) -> list[PairedMatches]:
    """Every view of a context matched with several others, those that suit it best first."""
    others = nearest_others(costs, _MOST_PAIRS)
    return [PairedMatches(matcher.match(features, features, o, coarse), o) for o in others.unbind(-1)]


@torch.no_grad()
def _adjust(
    matcher: ViewMatcher,
    features: Features,
    pairs: PosedMatches,
    lengths: Float[Tensor, "b v"],
    every_pair: Sequence[PairedMatches],
    intrinsics: Float[Tensor, "b v 3 3"],
    calibrate: bool,
) -> tuple[PosedMatches, Float[Tensor, "b"], Float[Tensor, "b v h w"]]:
    """Poses that suit every pair at once, how much longer the focal length is, and log-depth."""
    relative = make_pose(pairs.pose.rotation, lengths[..., None] * pairs.pose.direction)[:, 1:]
    start = chain_poses(relative, pairs.references[:, 1:])
    poses, factor = adjust_poses(MatchedViews.calibrated(every_pair, intrinsics), start, focal=calibrate)
    cameras = Cameras(poses, scale_focal(intrinsics, factor))
    rays = calibrated(pairs, cameras.intrinsics, cameras.intrinsics)
    pose, lengths = pose_between(rays, poses, pairs.references)
    log_depth = fused_depth(every_pair, cameras, *_match_grid(matcher, features))
    return replace(pairs, pose=pose, lengths=lengths), factor, log_depth


def _match_grid(matcher: ViewMatcher, features: Features) -> tuple[tuple[int, int], float]:
    """Rows and columns of matches, and how far depth is smoothed there."""
    rows, columns = features[0].shape[-2:]
    stride = matcher.stride(rows, columns)
    return (rows // stride, columns // stride), _SMOOTHING / stride
