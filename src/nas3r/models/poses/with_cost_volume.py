"""Any way to find poses, with a cost volume told to the tokens beside it."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry import Cameras
from nas3r.matching import ViewMatcher
from nas3r.models.cost_volume import CostVolume
from nas3r.models.poses.interface import Clues, PoseFinder


@dataclass(frozen=True)
class VolumeClues(Clues):
    """Clues with what other views are compared with.

    Attributes:
        first: Features of the context's first view.
        inner: Clues of the part that finds poses.
    """

    first: Float[Tensor, "b 1 c gh gw"] = field(kw_only=True)
    inner: Clues = field(kw_only=True)


class PosesWithCostVolume(PoseFinder):
    """Compares every view with the context's first one; poses are found by another part.

    Args:
        volume: The cost volume.
        poses: Finds poses.
    """

    def __init__(self, volume: CostVolume, poses: PoseFinder) -> None:
        super().__init__()
        self.volume = volume
        self.poses = poses

    def match_context(self, images: Float[Tensor, "b v 3 h w"], intrinsics: Tensor | None) -> VolumeClues:
        """Every view is compared with the first, which itself is compared with the last."""
        features = self.volume.features(images)
        first, last = features[:, :1], features[:, -1:]
        references = torch.cat([last, first.expand_as(features[:, 1:])], 1)
        return self._joined(features, references, first, self.poses.match_context(images, intrinsics))

    def match_targets(
        self, images: Float[Tensor, "b t 3 h w"], intrinsics: Tensor | None, context_clues: Clues
    ) -> VolumeClues:
        """Every target is compared with the context's first view."""
        assert isinstance(context_clues, VolumeClues)
        features = self.volume.features(images)
        inner = self.poses.match_targets(images, intrinsics, context_clues.inner)
        return self._joined(features, context_clues.first.expand_as(features), context_clues.first, inner)

    def context_cameras(self, head_cameras: Cameras, clues: Clues, depth: Tensor) -> Cameras:
        """As the part that finds poses says."""
        assert isinstance(clues, VolumeClues)
        return self.poses.context_cameras(head_cameras, clues.inner, depth)

    def target_cameras(
        self,
        head_cameras: Cameras,
        clues: Clues,
        context_clues: Clues,
        context_cameras: Cameras,
        depth: Tensor,
    ) -> Cameras:
        """As the part that finds poses says."""
        assert isinstance(clues, VolumeClues)
        assert isinstance(context_clues, VolumeClues)
        return self.poses.target_cameras(
            head_cameras, clues.inner, context_clues.inner, context_cameras, depth
        )

    def matching_loss(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""] | None:
        """Of the part that finds poses."""
        return self.poses.matching_loss(images)

    def peak_bytes(self, height: int, width: int, views: int) -> int:
        """Of the part that finds poses."""
        return self.poses.peak_bytes(height, width, views)

    @property
    def view_matcher(self) -> ViewMatcher | None:
        """Of the part that finds poses."""
        return self.poses.view_matcher

    def _joined(self, features: Tensor, references: Tensor, first: Tensor, inner: Clues) -> VolumeClues:
        added = self.volume(features, references)
        return VolumeClues((added, *inner.tokens), inner.log_depth, first=first, inner=inner)
