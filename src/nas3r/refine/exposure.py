"""How bright and of what tint each photo was taken, as against the others."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Exposure(nn.Module):
    """A gain and an offset for every view and channel, whose mean over the views is none.

    Without that the scene could be dark and every view bright; and a further view is rendered with none.
    """

    def __init__(self, views: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(views, 3))
        self.offset = nn.Parameter(torch.zeros(views, 3))

    def forward(self, color: Float[Tensor, "3 h w"], view: int) -> Float[Tensor, "3 h w"]:
        """What a view's camera makes of a rendering."""
        gain = (self.log_gain[view] - self.log_gain.mean(0)).exp()
        offset = self.offset[view] - self.offset.mean(0)
        return color * gain[:, None, None] + offset[:, None, None]
