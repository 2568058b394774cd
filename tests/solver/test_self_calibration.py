"""A focal length found from correspondences."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas3r.geometry import rotation_angle, so3_exp
from nas3r.solver.self_calibration import calibrate_focal, focal_costs
from nas3r.solver.two_view import Correspondences, RelativePose, search_relative_pose


def seen_with(focal: float, *, views: int = 3, count: int = 200) -> tuple[Correspondences, Tensor]:
    """Exact matches of several views with one, as if the focal length were 1, and the true rotations."""
    g = torch.Generator().manual_seed(2)
    axis = F.normalize(torch.randn(views, 3, generator=g, dtype=torch.float64), dim=-1)
    rotation = so3_exp(0.35 * axis)
    translation = 0.6 * F.normalize(torch.randn(views, 3, generator=g, dtype=torch.float64), dim=-1)
    xy = (torch.rand(views, count, 2, generator=g, dtype=torch.float64) - 0.5) / focal
    rays = F.pad(xy, (0, 1), value=1.0)
    depth = 1.5 + 3 * torch.rand(views, count, 1, generator=g, dtype=torch.float64)
    points = (depth * rays) @ rotation.mT + translation[:, None]
    matches = points[..., :2] / points[..., 2:]
    pairs = Correspondences(
        rays=F.pad(focal * xy, (0, 1), value=1.0),
        points=focal * matches,
        covariances=(0.02**2 * torch.eye(2, dtype=torch.float64)).expand(views, count, 2, 2),
        weights=torch.ones(views, count, dtype=torch.float64),
    )
    return pairs, rotation


@pytest.mark.parametrize("focal", [0.65, 1.0, 1.5])
def test_exact_matches_say_the_focal_length(focal):
    pairs, rotation = seen_with(focal)
    start = search_relative_pose(pairs, hypotheses=128, iterations=3)
    factor, pose = calibrate_focal(pairs, start)
    # Half of the grid's spacing of 17 %; the estimate is a mean over the grid.
    assert abs(factor.log() - torch.tensor(focal).log()) < 0.09
    assert pose.rotation.shape == rotation.shape
    if focal == 1.0:
        assert (rotation_angle(pose.rotation, rotation) < 1).all()


def test_the_true_focal_length_costs_least():
    pairs, _ = seen_with(1.0)
    costs = torch.stack(
        focal_costs(pairs, search_relative_pose(pairs, hypotheses=128, iterations=3)), -1
    ).sum(0)
    assert costs.shape == (8,)
    assert costs.argmin() == 4


def test_nothing_seen_leaves_the_assumption():
    pairs, _ = seen_with(1.3)
    blind = Correspondences(pairs.rays, pairs.points, pairs.covariances, torch.zeros_like(pairs.weights))
    pose = RelativePose(
        torch.eye(3, dtype=torch.float64).expand(3, 3, 3),
        F.normalize(torch.ones(3, 3, dtype=torch.float64), dim=-1),
        torch.zeros(3, dtype=torch.float64),
    )
    factor, moved = calibrate_focal(blind, pose)
    # The mean over a grid that is a little longer on one side.
    assert abs(factor.log()) < 0.06
    assert moved.rotation.isfinite().all()
