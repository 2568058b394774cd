"""Test-time alignment moves the camera, and nothing but rigidly."""

import torch

from nas3r.evaluation.alignment import align_pose, squared_error
from nas3r.evaluation.pose import relative_pose_errors
from nas3r.evaluation.protocols import ViewSet
from nas3r.geometry import Cameras, se3_exp
from nas3r.render import render

VIEWS = ViewSet((0, 6), (3,), None, "unknown")


def setup(oracle, worlds):
    views = worlds[0].read([0, 6, 3], 32, 32)
    target = oracle.locate(views, VIEWS)[0]
    gaussians = target.prediction.gaussians
    image = render(gaussians, target.camera, 32, 32).color[0, 0]
    return gaussians, target.camera, image


def moved(camera: Cameras, twist: list[float]) -> Cameras:
    return Cameras(camera.world_from_camera @ se3_exp(torch.tensor(twist)), camera.intrinsics)


def test_a_moved_camera_comes_back(oracle, worlds):
    gaussians, camera, image = setup(oracle, worlds)
    start = moved(camera, [0.0, 0.0, 0.0, 0.03, -0.04, 0.02])
    aligned = align_pose(gaussians, start, image, steps=120)
    error = [
        float(relative_pose_errors(c.world_from_camera[0], camera.world_from_camera[0]).rotation)
        for c in (start, aligned)
    ]
    assert error[0] > 2.5
    assert error[1] < 0.3 * error[0]
    rotation = aligned.world_from_camera[0, 0, :3, :3]
    # A product of float32 rotations.
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=1e-5, rtol=0)
    assert torch.equal(aligned.intrinsics, camera.intrinsics)


def test_never_worse_than_the_start(oracle, worlds):
    gaussians, camera, image = setup(oracle, worlds)
    aligned = align_pose(gaussians, camera, image, steps=3, rate=0.5)
    assert torch.equal(aligned.world_from_camera, camera.world_from_camera)


def test_nothing_in_sight_is_left_where_it_was(oracle, worlds):
    gaussians, camera, image = setup(oracle, worlds)
    away = moved(camera, [0.0, 0.0, 0.0, 0.0, 3.14159, 0.0])
    emptied = gaussians.select(slice(0, 0))
    aligned = align_pose(emptied, away, image, steps=3)
    assert torch.equal(aligned.world_from_camera, away.world_from_camera)
    assert float(squared_error(image, image)) == 0
