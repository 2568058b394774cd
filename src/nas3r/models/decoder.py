"""What both families of decoders have in common."""

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from nas3r.layers.attention import KeyValue


def check_hooks(hooks: tuple[int, ...], last: int) -> None:
    """Raises ValueError unless layers whose tokens feed the dense heads exist."""
    if max(hooks) > last:
        raise ValueError(f"hooks: expected layers from 0 to {last}, got {list(hooks)}")


@dataclass(frozen=True)
class Decoded:
    """What a decoder says about some views.

    Attributes:
        levels: Patch tokens at the hooked layers, [b, v, p, c] each.
        camera: The token the camera head reads [b, v, c].
        pooled: Mean of the last layer's patch tokens [b, v, c].
    """

    levels: list[Float[Tensor, "b v p c"]]
    camera: Float[Tensor, "b v c"]
    pooled: Float[Tensor, "b v c"]

    def views(self, index: slice) -> "Decoded":
        """Some of the views."""
        return Decoded([x[:, index] for x in self.levels], self.camera[:, index], self.pooled[:, index])


class Decoder(Protocol):
    """Mixes the tokens of several views.

    Context views are run first, alone, and leave keys and values behind; target views attend to these and to
    themselves. So the context cannot depend on a target, nor a target on another, whatever the weights.
    """

    @property
    def level_widths(self) -> list[int]:
        """Channels of the decoded levels."""
        ...

    @property
    def output_width(self) -> int:
        """Channels of the camera token."""
        ...

    def encode_context(
        self,
        tokens: Float[Tensor, "b v p c"],
        grid: tuple[int, int],
        intrinsics: Float[Tensor, "b v 3 3"] | None = None,
    ) -> tuple[Decoded, list[KeyValue]]:
        """Runs the context views.

        Args:
            tokens: Patch tokens of the encoder; view 0 is the first view.
            grid: Rows and columns of patches.
            intrinsics: Normalised intrinsics for the intrinsics token.

        Returns:
            The decoded views, and what every layer leaves behind for targets.
        """
        ...

    def encode_targets(
        self,
        tokens: Float[Tensor, "b v p c"],
        grid: tuple[int, int],
        cache: list[KeyValue],
        intrinsics: Float[Tensor, "b v 3 3"] | None = None,
        context_grid: tuple[int, int] | None = None,
    ) -> Decoded:
        """Runs target views, each with the cached context and itself.

        Args:
            tokens: Patch tokens of the encoder.
            grid: Rows and columns of patches.
            cache: From `encode_context`.
            intrinsics: Normalised intrinsics for the intrinsics token.
            context_grid: Rows and columns of the context's patches, where targets have fewer of them.
        """
        ...
