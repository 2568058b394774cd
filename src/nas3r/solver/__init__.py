"""Cameras from matches. In the order in which it happens to the views of a context:

1. `view_graph`: views are compared, and over pairs that match well short ways lead from each to the first.
2. `correspondences`: matches become rays, with intrinsics that are known or assumed.
3. `two_view`: the relative pose of every pair on these ways is searched for and refined (`epipolar` has the
   distances and slopes; `pairs` holds what is found).
4. `self_calibration`: all these pairs say a focal length, if nothing told it.
5. `triangulation`: matches and poses say coarse depth, which ties the lengths of translations together.
6. `all_views`: from three views on, poses and focal length that suit the matches of all pairs at once, after
   which depth is triangulated again, from all of them.

`context` does this. `targets` then locates further views: by the best view of the context, and by `resection`
where several show the same points. Nothing here is learnt, and nothing knows of the network.
"""

from nas3r.solver.context import ContextSolution, solve_context
from nas3r.solver.correspondences import assumed_intrinsics, scale_focal
from nas3r.solver.pairs import PosedMatches, relative_poses
from nas3r.solver.targets import TargetSolution, solve_targets, target_poses
from nas3r.solver.view_graph import chain_poses

__all__ = [
    "ContextSolution",
    "PosedMatches",
    "TargetSolution",
    "assumed_intrinsics",
    "chain_poses",
    "relative_poses",
    "scale_focal",
    "solve_context",
    "solve_targets",
    "target_poses",
]
