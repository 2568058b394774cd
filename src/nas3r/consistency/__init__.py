"""What can be done once cameras are known, whichever model found them: views are compared with each other.

`comparison` is the stage at a model's own size: it takes a scene's cameras, depth and Gaussians, and gives
depth and Gaussians on which the views agree. It uses `plane_sweep` (depth moves to where views look alike)
and `photo_consistency` (Gaussians count as far as other views show their colour); `reprojection` says where
views show the points of other views.

Where cameras are exact, `patch_match` finds depth, normals and confidence at the photos' size, and `surfaces`
makes Gaussians of them, one for a piece of surface. `sources` chooses what a view is compared with,
`plane_cost` and `propagation` compare and search, `two_way` says what views confirm, `filling` what stands
elsewhere.
"""

from nas3r.consistency.comparison import Surfaces, compare_views
from nas3r.consistency.patch_match import DenseViews, PatchMatchConfig, dense_depth
from nas3r.consistency.surfaces import SurfaceConfig, surface_gaussians

__all__ = [
    "DenseViews",
    "PatchMatchConfig",
    "SurfaceConfig",
    "Surfaces",
    "compare_views",
    "dense_depth",
    "surface_gaussians",
]
