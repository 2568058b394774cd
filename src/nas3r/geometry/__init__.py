"""Rotations, rigid motions, pinhole cameras, projection and alignment: pure, differentiable functions."""

from nas3r.geometry.alignment import Similarity, align_cameras, align_points
from nas3r.geometry.batch import nearest_others, select_views, without_diagonal
from nas3r.geometry.camera import Cameras
from nas3r.geometry.maps import gaussian_blur, sample_maps
from nas3r.geometry.projection import pixel_grid, project, unproject, unproject_depth
from nas3r.geometry.rotation import (
    angle_between,
    matrix_from_quat,
    matrix_from_rot6d,
    multiply_quats,
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
    "gaussian_blur",
    "invert_pose",
    "make_pose",
    "matrix_from_quat",
    "matrix_from_rot6d",
    "multiply_quats",
    "nearest_others",
    "pixel_grid",
    "project",
    "quat_from_matrix",
    "relative_to_first",
    "rotation_angle",
    "sample_maps",
    "se3_exp",
    "se3_log",
    "select_views",
    "so3_exp",
    "so3_log",
    "transform_points",
    "unproject",
    "unproject_depth",
    "without_diagonal",
]
