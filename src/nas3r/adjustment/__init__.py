"""Exact cameras from photos at full size, starting from any model's cameras and depth. In this order:

1. `coarse`: what the model says, in pixels. `keypoints`: points that can be found again.
2. `pairs`: which views are compared; `verified` matches need no cameras, `guided` ones do.
3. `tracks`: matches of pairs become points seen by many views; `triangulation` places them.
4. `bundle`: poses, lenses and points that explain what was seen, with `normal_equations`; and how exactly.
5. `landmarks`: further photos are found among the points.
6. `relocation` and `incremental`: where the model had a view, or all of them, in a wrong place.

`exact` is the stage. Nothing here knows of networks.
"""

from nas3r.adjustment.exact import (
    AdjustmentConfig,
    ExactCameras,
    NotAdjustableError,
    SparseScene,
    exact_cameras,
)
from nas3r.adjustment.landmarks import Landmarks

__all__ = [
    "AdjustmentConfig",
    "ExactCameras",
    "Landmarks",
    "NotAdjustableError",
    "SparseScene",
    "exact_cameras",
]
