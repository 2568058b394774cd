"""Which views are rendered from whose Gaussians."""

import torch
from jaxtyping import Int
from torch import Tensor

from nas3r.geometry import project
from nas3r.refine.anchored import AnchoredGaussians
from nas3r.refine.settings import RefineSettings


class Neighbours:
    """For each view: Gaussians of other views that see the same things.

    Attributes:
        views: Views that have others to be rendered from.
    """

    def __init__(self, anchored: AnchoredGaussians, train: list[int], settings: RefineSettings) -> None:
        self._count = settings.neighbours
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._rows = {view: (anchored.view == view).nonzero().squeeze(1) for view in train}
        holders = [view for view in train if len(self._rows[view])]
        self._others = {view: [other for other in holders if other != view] for view in train}
        self.views = [view for view in train if self._others[view]]

        xy, depth = project(anchored.cameras, anchored.gaussians.means)
        seen = ((depth > 0) & (xy > 0).all(-1) & (xy < 1).all(-1))[0].double()
        # The small constant lets views meet that seem to share nothing yet.
        self._overlap = {
            view: torch.tensor([1e-3 + seen[view, self._rows[other]].mean().item() for other in others])
            for view, others in self._others.items()
        }

    def draw(self, view: int) -> Int[Tensor, "m"]:
        """Rows of the Gaussians of some other views, drawn by how much of them `view` sees."""
        others = self._others[view]
        count = min(self._count, len(others))
        drawn = torch.multinomial(self._overlap[view], count, generator=self._generator).tolist()
        return torch.cat([self._rows[others[i]] for i in drawn])
