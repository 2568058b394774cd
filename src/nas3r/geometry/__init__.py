"""Rotations, rigid motions, pinhole cameras, projection and alignment: pure, differentiable functions."""

from nas3r.geometry.alignment import Similarity, align_cameras, align_points
from nas3r.geometry.camera import Cameras
from nas3r.geometry.projection import pixel_grid, project, unproject, unproject_depth
from nas3r.geometry.rotation import (
    angle_between,
    matrix_from_quat,
    matrix_from_rot6d,
    quat_from_matrix,
    rotation_angle,
    so3_exp,
    so3_log,
)
from nas3r.geometry.se3 import invert_pose, make_pose, relative_to_first, se3_exp, se3_log, transform_points

__all__ = [
    "Cameras",
    "Similarity",
    "align_cameras",
    "align_points",
    "angle_between",
    "invert_pose",
    "make_pose",
    "matrix_from_quat",
    "matrix_from_rot6d",
    "pixel_grid",
    "project",
    "quat_from_matrix",
    "relative_to_first",
    "rotation_angle",
    "se3_exp",
    "se3_log",
    "so3_exp",
    "so3_log",
    "transform_points",
    "unproject",
    "unproject_depth",
]
