"""Depth from matches and poses."""

import torch
import torch.nn.functional as F

from nas3r.geometry import Cameras, make_pose, so3_exp
from nas3r.matching import Matches
from nas3r.solver import PosedMatches
from nas3r.solver.triangulation import fused_depth, triangulated_depth
from nas3r.solver.two_view import RelativePose


def _plane_depth(pose: torch.Tensor, rays: torch.Tensor) -> torch.Tensor:
    """z-depth of the plane n . x = 3 along rays [n, 3] of a camera."""
    normal = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64)
    return (3 - normal @ pose[:3, 3]) / (rays @ pose[:3, :3].T @ normal)


class _Plane:
    """Exact matches of a slanted plane, seen by three views."""

    def __init__(self) -> None:
        self.grid = 8, 8
        line = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
        self.places = torch.cartesian_prod(line, line).flip(-1)
        self.rays = F.pad(self.places - 0.5, (0, 1), value=1.0)
        angles = torch.tensor([[0.0, 0, 0], [0.02, -0.05, 0.01], [0.0, -0.1, 0.03]], dtype=torch.float64)
        centers = torch.tensor([[0.0, 0, 0], [0.2, 0.05, 0.02], [0.6, 0.0, 0.05]], dtype=torch.float64)
        self.poses = make_pose(so3_exp(angles), centers)
        k = torch.tensor([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=torch.float64)
        self.cameras = Cameras(self.poses[None], k.expand(1, 3, 3, 3))

    def solved(self, references: list[int]) -> PosedMatches:
        """Every view matched with one other, and its true motion in that one's frame."""
        found, rotation, direction = [], [], []
        for pose, reference in zip(self.poses, self.poses[references]):
            points = (_plane_depth(pose, self.rays)[:, None] * self.rays) @ pose[:3, :3].T + pose[:3, 3]
            seen = (points - reference[:3, 3]) @ reference[:3, :3]
            found.append(seen[:, :2] / seen[:, 2:] + 0.5)
            rotation.append(reference[:3, :3].T @ pose[:3, :3])
            direction.append(F.normalize(reference[:3, :3].T @ (pose[:3, 3] - reference[:3, 3]), dim=0))
        n = len(self.rays)
        matches = Matches(
            self.places.expand(1, 3, n, 2),
            torch.stack(found)[None],
            (1e-3**2 * torch.eye(2, dtype=torch.float64)).expand(1, 3, n, 2, 2),
            torch.ones(1, 3, n, dtype=torch.float64),
            torch.ones(1, 3, n, dtype=torch.float64),
        )
        pose = RelativePose(torch.stack(rotation)[None], torch.stack(direction)[None], torch.zeros(1, 3))
        return PosedMatches(matches, torch.tensor([references]), pose)

    def off(self, log_depth: torch.Tensor) -> torch.Tensor:
        """Of logarithms of depth maps [view, place]."""
        return log_depth.flatten(2)[0] - torch.stack([_plane_depth(p, self.rays).log() for p in self.poses])


def test_triangulated_depths_of_a_chain_have_one_scale():
    """1 with 0, 2 with 1, and 0 with 1."""
    plane = _Plane()
    log_depth, lengths = triangulated_depth(
        plane.solved([1, 0, 1]), plane.cameras.intrinsics, plane.grid, 1.5
    )
    off = plane.off(log_depth)
    # Inverse depth is triangulated to first order in translation over depth, and smoothed at the borders.
    assert (off - off.mean()).abs().max() < 0.2
    assert off.mean(1).std() < 0.05
    true = plane.poses[[0, 1, 2], :3, 3] - plane.poses[[1, 0, 1], :3, 3]
    ratio = lengths[0] / true.norm(dim=-1)
    assert (ratio.log() - off.mean()).abs().max() < 0.1  # in the unit of the depth


def test_depths_from_several_views_are_in_the_unit_of_the_poses():
    plane = _Plane()
    links = [plane.solved([1, 0, 1]), plane.solved([2, 2, 0])]
    off = plane.off(fused_depth(links, plane.cameras, plane.grid, 1.5))
    assert off.abs().max() < 0.2  # as above
    assert off.mean().abs() < 0.05
