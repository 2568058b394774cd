import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas3r.geometry import Cameras, make_pose, so3_exp
from nas3r.reconstruction.trajectory import orbit, through_views


def cameras(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rotations = so3_exp(0.5 * torch.randn(count, 3, generator=generator))
    poses = make_pose(rotations, torch.randn(count, 3, generator=generator))
    k = torch.tensor([[1.0, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]])
    return Cameras(poses[None], k.expand(1, count, 3, 3))


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 7), frames=st.integers(2, 40), seed=st.integers(0, 99))
def test_the_path_is_rigid_and_runs_from_the_first_to_the_last_view(count, frames, seed):
    views = cameras(count, seed)
    path = through_views(views, frames)
    assert path.num_views == frames
    for end in (0, -1):
        torch.testing.assert_close(
            path.world_from_camera[0, end], views.world_from_camera[0, end], rtol=0, atol=1e-5
        )
    rotations = path.world_from_camera[0, :, :3, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(frames, 3, 3), rtol=0, atol=1e-5)


def test_the_path_passes_through_the_middle_view():
    views = cameras(3)
    path = through_views(views, 5)
    torch.testing.assert_close(path.world_from_camera[0, 2], views.world_from_camera[0, 1], rtol=0, atol=1e-5)


def test_an_orbit_keeps_looking_at_one_point():
    views = cameras(3)
    path = orbit(views, 2.0, 12)
    target = views.world_from_camera[0, 1] @ torch.tensor([0, 0, 2.0, 1])
    in_camera = path.camera_from_world[0] @ target
    torch.testing.assert_close(in_camera[:, :2], torch.zeros(12, 2), rtol=0, atol=1e-5)
    assert path.centers[0].std(0).max() > 0.05


def test_wrong_arguments():
    with pytest.raises(ValueError, match="at least 2 frames"):
        through_views(cameras(2), 1)
    with pytest.raises(ValueError, match="positive depth"):
        orbit(cameras(2), 0.0, 5)
