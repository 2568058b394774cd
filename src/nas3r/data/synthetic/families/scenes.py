"""What a family of worlds returns, and how points are put together from coordinates.

y points down and floors lie at y = 0, so that something of half height h standing on the floor has its centre
at y = -h. Solids may run into each other: the scene is their union.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.synthetic.layout import Layout


@dataclass(frozen=True)
class Scenes:
    """n scenes of one family.

    Attributes:
        layout: Their solids.
        stage: Centre and half extents of where cameras are placed [n, 2, 3].
        focus: Something worth looking at [n, 3].
        clearance: Least distance between camera and surfaces, metres.
        lamp: Position of the lamp [n, 3]; None outdoors.
    """

    layout: Layout
    stage: Float[Tensor, "n 2 3"]
    focus: Float[Tensor, "n 3"]
    clearance: float
    lamp: Float[Tensor, "n 3"] | None


def xyz(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Points from coordinates that are broadcast to each other."""
    return torch.stack(torch.broadcast_tensors(x, y, z), -1)
