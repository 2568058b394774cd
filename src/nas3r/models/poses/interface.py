"""The interface of the parts that find poses."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from nas3r.geometry import Cameras
from nas3r.matching import ViewMatcher


@dataclass(frozen=True)
class Clues:
    """What is known of views before the decoder, from looking at several of them.

    Attributes:
        tokens: What to add to their patch tokens [b, v, p, c], one after the other.
        log_depth: Where the depth head starts from [b, v, gh, gw]; None: from nothing.
    """

    tokens: tuple[Float[Tensor, "b v p c"], ...] = ()
    log_depth: Float[Tensor, "b v gh gw"] | None = None


class PoseFinder(nn.Module, ABC):
    """Finds cameras. Context views never see a target, nor a target another one."""

    @abstractmethod
    def match_context(self, images: Float[Tensor, "b v 3 h w"], intrinsics: Tensor | None) -> Clues:
        """What the views of a context say of each other.

        Args:
            images: In [0, 1].
            intrinsics: Normalised ones [b, v, 3, 3], if they were given.
        """

    @abstractmethod
    def match_targets(
        self, images: Float[Tensor, "b t 3 h w"], intrinsics: Tensor | None, context_clues: Clues
    ) -> Clues:
        """What targets say of the context, each by itself.

        Args:
            images: In [0, 1].
            intrinsics: Normalised ones [b, t, 3, 3], if they were given.
            context_clues: From `match_context`.
        """

    @abstractmethod
    def context_cameras(
        self, head_cameras: Cameras, clues: Clues, depth: Float[Tensor, "b v h w"]
    ) -> Cameras:
        """Cameras of a context.

        Args:
            head_cameras: What the camera head says.
            clues: From `match_context`.
            depth: z-depth of the views.
        """

    @abstractmethod
    def target_cameras(
        self,
        head_cameras: Cameras,
        clues: Clues,
        context_clues: Clues,
        context_cameras: Cameras,
        depth: Float[Tensor, "b v h w"],
    ) -> Cameras:
        """Cameras of targets in the frame of the context.

        Args:
            head_cameras: What the camera head says.
            clues: From `match_targets`.
            context_clues: From `match_context`.
            context_cameras: Cameras of the context.
            depth: z-depth of the context.
        """

    def matching_loss(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""] | None:
        """What the features that views are matched by learn from; None where nothing is learnt."""
        return None

    def peak_bytes(self, height: int, width: int, views: int) -> int:
        """Most memory that comparing views of this size takes at once, beside the network's."""
        return 0

    @property
    def view_matcher(self) -> ViewMatcher | None:
        """What views are matched with, if they are."""
        return None
