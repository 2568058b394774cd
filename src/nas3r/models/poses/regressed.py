"""Poses as the camera head says them: the published method."""

from dataclasses import dataclass

from torch import Tensor

from nas3r.geometry import Cameras
from nas3r.models.poses.interface import Clues, PoseFinder


@dataclass(frozen=True)
class Regressed:
    """Poses are regressed; what displacements say about cameras and depth must be learnt."""


class RegressedPoses(PoseFinder):
    """Attention alone compares views, so there are no clues, and the camera head's word counts."""

    def match_context(self, images: Tensor, intrinsics: Tensor | None) -> Clues:
        """Nothing."""
        return Clues()

    def match_targets(self, images: Tensor, intrinsics: Tensor | None, context_clues: Clues) -> Clues:
        """Nothing."""
        return Clues()

    def context_cameras(self, head_cameras: Cameras, clues: Clues, depth: Tensor) -> Cameras:
        """What the camera head says."""
        return head_cameras

    def target_cameras(
        self,
        head_cameras: Cameras,
        clues: Clues,
        context_clues: Clues,
        context_cameras: Cameras,
        depth: Tensor,
    ) -> Cameras:
        """What the camera head says."""
        return head_cameras
