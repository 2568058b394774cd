"""Exact cameras from photos at full size, starting from any model's cameras and depth. In this order:

1. `coarse`: what the model says, in pixels. `keypoints`: points that can be found again.
2. `pairs`: which views are compared; `verified` matches need no cameras, `guided` ones do.
3. `tracks`: matches of pairs become points seen by many views; `triangulation` places them.
4. `bundle`: poses, lenses and points that explain what was seen, with `normal_equations`; and how exactly.
5. `landmarks`: further photos are found among the points.
6. `bending`: which lenses bend straight lines.
7. `relocation` and `incremental`: where the model had a view, or all of them, in a wrong place.

`exact` is the stage. Nothing here knows of networks.
"""

from nas3r.adjustment.bending import BendConfig, agreement, bending
from nas3r.adjustment.bundle import Lenses, Options, Prior, State, Uncertainty, adjust, residuals, uncertainty
from nas3r.adjustment.coarse import CoarseViews
from nas3r.adjustment.exact import (
    AdjustmentConfig,
    ExactCameras,
    NotAdjustableError,
    Seen,
    exact_cameras,
    exact_cameras_of,
)
from nas3r.adjustment.keypoints import Keypoints, find_keypoints
from nas3r.adjustment.landmarks import Landmarks
from nas3r.adjustment.outcome import (
    SparseScene,
    cameras_of,
    depth_scales,
    exactness,
    in_unit,
    sparse_scene,
)
from nas3r.adjustment.placing import PlacedPoints, place_points
from nas3r.adjustment.relocation import LEAST_POINTS, Sighting
from nas3r.adjustment.tracks import PairMatches, Tracks, join_tracks
from nas3r.adjustment.verified import match_freely

__all__ = [
    "LEAST_POINTS",
    "AdjustmentConfig",
    "BendConfig",
    "CoarseViews",
    "ExactCameras",
    "Keypoints",
    "Landmarks",
    "Lenses",
    "NotAdjustableError",
    "Options",
    "PairMatches",
    "PlacedPoints",
    "Prior",
    "Seen",
    "Sighting",
    "SparseScene",
    "State",
    "Tracks",
    "Uncertainty",
    "adjust",
    "agreement",
    "bending",
    "cameras_of",
    "depth_scales",
    "exact_cameras",
    "exact_cameras_of",
    "exactness",
    "find_keypoints",
    "in_unit",
    "join_tracks",
    "match_freely",
    "place_points",
    "residuals",
    "sparse_scene",
    "uncertainty",
]
