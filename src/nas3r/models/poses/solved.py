"""Poses that are solved for from matches; the camera head corrects them.

What regression must learn from millions of examples, that displacements depend on rotation, translation and
depth in a certain way, is built in. The network learns the rest: what to match by, depth, what to correct.
"""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from nas3r.config_parts import check_part
from nas3r.geometry import Cameras, make_pose
from nas3r.matching import Features, FeaturesConfig, ViewMatcher
from nas3r.models.poses.interface import Clues, PoseFinder
from nas3r.models.poses.pair_embedding import PairEmbedding
from nas3r.models.precision import full_precision
from nas3r.solver import (
    ContextSolution,
    PosedMatches,
    TargetSolution,
    assumed_intrinsics,
    chain_poses,
    relative_poses,
    scale_focal,
    solve_context,
    solve_targets,
    target_poses,
)

_CELLS_PER_PATCH = 4  # along both axes
_DIRECTIONS, _DIRECTIONS_IN_TRAINING = 128, 64


@dataclass(frozen=True)
class Solved:
    """Poses are solved for from matches.

    Attributes:
        calibrate: Whether matches of a context say a focal length, if none is given, which the camera head
            then corrects.
        features: What views are matched by.
    """

    calibrate: bool = False
    features: FeaturesConfig = field(default_factory=FeaturesConfig)

    def __post_init__(self) -> None:
        check_part(self)


@dataclass(frozen=True)
class ContextClues(Clues):
    """Clues with what was solved for.

    Attributes:
        solution: Of the context.
    """

    solution: ContextSolution = field(kw_only=True)


@dataclass(frozen=True)
class TargetClues(Clues):
    """Clues with what was solved for.

    Attributes:
        solution: Of the targets.
    """

    solution: TargetSolution = field(kw_only=True)


class SolvedPoses(PoseFinder):
    """Matches views, solves for their poses, and embeds what follows into their tokens.

    Views are compared on cells of a quarter of a patch, then on finer and finer images.

    Args:
        config: Of this part.
        width: Channels of the patch tokens.
        patch_size: A power of two, at least 4.
        any_pair: Whether views may be matched with any view of the context. Else they are matched with the
            first one only, because other views' depth is not known.
    """

    def __init__(self, config: Solved, width: int, patch_size: int, *, any_pair: bool = True) -> None:
        super().__init__()
        self.calibrate = config.calibrate
        self.any_pair = any_pair
        self.matcher = ViewMatcher(config.features, patch_size // _CELLS_PER_PATCH)
        self.embedding = PairEmbedding(width)

    def match_context(self, images: Float[Tensor, "b v 3 h w"], intrinsics: Tensor | None) -> ContextClues:
        """Matches and solves; see the interface."""
        with full_precision(images):
            images = images.float()
            solution = solve_context(
                self.matcher,
                self.matcher.features(images),
                assumed_intrinsics(images) if intrinsics is None else intrinsics.float(),
                calibrate=self.calibrate and intrinsics is None,
                any_pair=self.any_pair,
                directions=self._directions,
            )
            tokens = self._embedded(solution.pairs, solution.intrinsics, solution.features)
            return ContextClues((tokens,), solution.log_depth, solution=solution)

    def match_targets(
        self, images: Float[Tensor, "b t 3 h w"], intrinsics: Tensor | None, context_clues: Clues
    ) -> TargetClues:
        """Matches and solves; see the interface."""
        assert isinstance(context_clues, ContextClues)
        with full_precision(images):
            images = images.float()
            if intrinsics is None:
                intrinsics = self._with_focal_of(context_clues, assumed_intrinsics(images))
            features = self.matcher.features(images)
            solution = solve_targets(
                self.matcher,
                features,
                intrinsics.float(),
                context_clues.solution,
                any_pair=self.any_pair,
                directions=self._directions,
            )
            tokens = self._embedded(solution.pairs, intrinsics.float(), features)
            return TargetClues((tokens,), solution=solution)

    def context_cameras(
        self, head_cameras: Cameras, clues: Clues, depth: Float[Tensor, "b v h w"]
    ) -> Cameras:
        """Solved poses, corrected and chained; see the interface."""
        assert isinstance(clues, ContextClues)
        with full_precision(depth):
            intrinsics = self._with_focal_of(clues, head_cameras.intrinsics)
            pairs = clues.solution.pairs.views(slice(1, None))
            relative = relative_poses(pairs, intrinsics[:, 1:], intrinsics, depth)
            relative = corrected(relative, head_cameras.world_from_camera[:, 1:])
            return Cameras(chain_poses(relative, pairs.references), intrinsics)

    def target_cameras(
        self,
        head_cameras: Cameras,
        clues: Clues,
        context_clues: Clues,
        context_cameras: Cameras,
        depth: Float[Tensor, "b v h w"],
    ) -> Cameras:
        """Solved poses, corrected; see the interface."""
        assert isinstance(clues, TargetClues)
        assert isinstance(context_clues, ContextClues)
        with full_precision(depth):
            intrinsics = self._with_focal_of(context_clues, head_cameras.intrinsics)
            references, relative = target_poses(clues.solution, intrinsics, context_cameras, depth)
            return Cameras(references @ corrected(relative, head_cameras.world_from_camera), intrinsics)

    def matching_loss(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""] | None:
        """In training, of features that are learnt and not frozen; see the interface."""
        return self.matcher.matching_loss(images) if self.training and self.matcher.learns else None

    def peak_bytes(self, height: int, width: int, views: int) -> int:
        """Of the matcher; see the interface."""
        return self.matcher.peak_bytes(height, width, views)

    @property
    def view_matcher(self) -> ViewMatcher:
        """The matcher."""
        return self.matcher

    @property
    def _directions(self) -> int:
        return _DIRECTIONS_IN_TRAINING if self.training else _DIRECTIONS

    def _embedded(self, pairs: PosedMatches, intrinsics: Tensor, features: Features) -> Tensor:
        rows, columns = features[0].shape[-2:]
        few = self.matcher.few(rows, columns, features[0].device)
        grid = rows // _CELLS_PER_PATCH, columns // _CELLS_PER_PATCH
        return self.embedding(pairs, intrinsics, grid, few)

    @staticmethod
    def _with_focal_of(clues: ContextClues, intrinsics: Float[Tensor, "b v 3 3"]) -> Tensor:
        """Intrinsics whose focal length counts from that which matches say, if they were asked."""
        scale = clues.solution.focal_scale
        return intrinsics if scale is None else scale_focal(intrinsics, scale)


def corrected(
    relative: Float[Tensor, "b v 4 4"], correction: Float[Tensor, "b v 4 4"]
) -> Float[Tensor, "b v 4 4"]:
    """Solved poses with what the network corrects, in the view's own frame and in units of the translations.

    The camera head's pose of a view is read as a small motion after the solved one; an untrained head says
    the identity, which corrects nothing.
    """
    translation = relative[..., :3, 3]
    length = translation.square().sum(-1, keepdim=True).clamp_min(1e-12).sqrt()
    rotation = relative[..., :3, :3] @ correction[..., :3, :3]
    return make_pose(rotation, translation + length * correction[..., :3, 3])
