"""What can be done once cameras are known, whichever model found them: views are compared with each other.

`comparison` is the stage: it takes a scene's cameras, depth and Gaussians, and gives depth and Gaussians on
which the views agree. It uses `plane_sweep` (depth moves to where views look alike) and `photo_consistency`
(Gaussians count as far as other views show their colour); `reprojection` says where views show the points of
other views.
"""

from nas3r.consistency.comparison import Surfaces, compare_views

__all__ = ["Surfaces", "compare_views"]
