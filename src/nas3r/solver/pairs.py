"""`PosedMatches`: pairs of views with their matches and relative poses, and how such pairs are found."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.geometry import invert_pose, make_pose, select_views
from nas3r.matching.matches import Matches, PairedMatches, side_by_side
from nas3r.matching.view_matcher import Features, ViewMatcher
from nas3r.solver.correspondences import Correspondences, calibrated
from nas3r.solver.self_calibration import calibrate_focal
from nas3r.solver.two_view import (
    RelativePose,
    refine_relative_pose,
    relative_pose_at,
    search_relative_pose,
    translation_length,
)

_SEARCH_STEPS, _REFINE_STEPS = 3, 5
_LEAST_LENGTH = 1e-6  # of a translation, in the unit of the poses


@dataclass(frozen=True)
class PosedMatches(PairedMatches):
    """Matches of views with one other view each, and the poses that explain them.

    Attributes:
        pose: Of the query views in the frames of their references.
        lengths: How far they are from their reference, up to one factor for all, where all views of a context
            were solved for together; else depth tells.
    """

    pose: RelativePose
    lengths: Float[Tensor, "b v"] | None = None

    def views(self, index: slice) -> "PosedMatches":
        """Only some of the query views."""
        return PosedMatches(
            self.matches.views(index),
            self.references[:, index],
            RelativePose(*(getattr(self.pose, f.name)[:, index] for f in fields(RelativePose))),
            None if self.lengths is None else self.lengths[:, index],
        )

    @staticmethod
    def cat(parts: "Sequence[PosedMatches]") -> "PosedMatches":
        """Groups of query views, each solved for by itself and so without lengths, side by side."""
        assert all(part.lengths is None for part in parts)
        poses = [part.pose for part in parts]
        return PosedMatches(
            side_by_side([part.matches for part in parts]),
            torch.cat([part.references for part in parts], 1),
            RelativePose(*(torch.cat([getattr(p, f.name) for p in poses], 1) for f in fields(RelativePose))),
        )


def search_pairs(
    matcher: ViewMatcher,
    queries: Features,
    intrinsics: Float[Tensor, "b v 3 3"],
    context: Features,
    context_intrinsics: Float[Tensor, "b r 3 3"],
    references: Int[Tensor, "b v"],
    coarse: Sequence[Matches] | None = None,
    *,
    directions: int,
) -> PosedMatches:
    """Matches and a first estimate of the poses, with intrinsics that need not be right.

    Args:
        matcher: Finds the matches.
        queries: Features of the query views.
        intrinsics: Of those.
        context: Features of the views that they may be matched with.
        context_intrinsics: Of those.
        references: Which of those each is matched with.
        coarse: See `ViewMatcher.match`.
        directions: Number of directions of the translation that are tried.
    """
    pairs = PairedMatches(matcher.match(queries, context, references, coarse), references)
    rays = calibrated(pairs, intrinsics, context_intrinsics).detach()
    few = matcher.few(queries[0].shape[-2], queries[0].shape[-1], queries[0].device)
    pose = search_relative_pose(rays, hypotheses=directions, iterations=_SEARCH_STEPS, few=few)
    return PosedMatches(pairs.matches, references, pose)


def calibrate_pairs(
    pairs: PosedMatches, intrinsics: Float[Tensor, "b v 3 3"]
) -> tuple[Float[Tensor, "b"], PosedMatches]:
    """How much longer the focal length of all views is than assumed, and the poses that follow.

    Args:
        pairs: Of all views of a context but the first.
        intrinsics: That were assumed, of all views.
    """
    factor, pose = calibrate_focal(calibrated(pairs, intrinsics[:, 1:], intrinsics).detach(), pairs.pose)
    return factor, replace(pairs, pose=pose)


def reversed_pair(
    matcher: ViewMatcher,
    features: Features,
    pairs: PosedMatches,
    partner: Int[Tensor, "b 1"],
    coarse: Sequence[Matches] | None = None,
) -> PosedMatches:
    """The first view matched with one that was matched with it, whose pose is known.

    Args:
        matcher: Finds the matches.
        features: Of all views of a context.
        pairs: Of all but the first.
        partner: Index of that view.
        coarse: The first view with all, see `ViewMatcher.match`.
    """
    rotation = select_views(pairs.pose.rotation, partner - 1).mT
    direction = -(rotation @ select_views(pairs.pose.direction, partner - 1)[..., None])[..., 0]
    pose = RelativePose(rotation, direction, select_views(pairs.pose.cost, partner - 1))
    first = tuple(x[:, :1] for x in features)
    return PosedMatches(matcher.match(first, features, partner, coarse), partner, pose)


def relative_poses(
    pairs: PosedMatches,
    intrinsics: Float[Tensor, "b v 3 3"],
    context_intrinsics: Float[Tensor, "b r 3 3"],
    depth: Float[Tensor, "b r h w"],
) -> Float[Tensor, "b v 4 4"]:
    """Poses of views in the frames of the views they were matched with; gradients reach all but the matches.

    Args:
        pairs: Matches and first estimates.
        intrinsics: Of the query views.
        context_intrinsics: Of the context.
        depth: z-depth of the context, which sets the length of the translations.
    """
    rays = calibrated(pairs, intrinsics, context_intrinsics)
    pose, lengths = pairs.pose, pairs.lengths
    if lengths is None:
        pose = refine_relative_pose(rays, pose, iterations=_REFINE_STEPS)
    seen = pairs.matches.look_up(select_views(depth, pairs.references))
    length = translation_length(rays, pose, seen)
    if lengths is not None:  # then depth tells only their unit
        length = lengths * (length / lengths).median(-1, keepdim=True).values
    return make_pose(pose.rotation, length[..., None] * pose.direction)


def pose_between(
    pairs: Correspondences, poses: Float[Tensor, "b v 4 4"], references: Int[Tensor, "b v"]
) -> tuple[RelativePose, Float[Tensor, "b v"]]:
    """Relative poses of views and their references whose poses are known, and the distances between them.

    Args:
        pairs: Their matches, which say what the poses cost.
        poses: World from camera, of all views.
        references: Index of each view's reference.
    """
    relative = invert_pose(select_views(poses, references)) @ poses
    length = torch.linalg.vector_norm(relative[..., :3, 3], dim=-1).clamp_min(_LEAST_LENGTH)
    return relative_pose_at(pairs, relative[..., :3, :3], relative[..., :3, 3] / length[..., None]), length
