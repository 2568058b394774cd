"""Second stage: every Gaussian on its own, all views at once."""

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.gaussians import SH_C0, Gaussians
from nas3r.geometry import Cameras

OPACITY_RANGE = (1e-4, 1 - 1e-4)  # keeps logits finite


class Rates(Protocol):
    """Step sizes; see `RefineSettings`."""

    @property
    def mean_rate(self) -> float:
        """Of centres, in distances from the nearest camera."""
        ...

    @property
    def scale_rate(self) -> float:
        """Relative."""
        ...

    @property
    def quat_rate(self) -> float:
        """Of unit quaternions."""
        ...

    @property
    def opacity_rate(self) -> float:
        """In logits."""
        ...

    @property
    def color_rate(self) -> float:
        """In units of colour."""
        ...


class FreeGaussians(nn.Module):
    """Gaussians as unconstrained parameters.

    Centres move in units of their distance from the nearest camera that sees them, so that one step is about
    the same number of pixels near and far.
    """

    base: Tensor
    reach: Tensor

    def __init__(self, gaussians: Gaussians, cameras: Cameras) -> None:
        super().__init__()
        self.register_buffer("base", gaussians.means[0].clone())
        self.register_buffer("reach", _reach(gaussians, cameras))
        self.offsets = nn.Parameter(torch.zeros_like(self.base))
        self.log_scales = nn.Parameter(gaussians.scales[0].clamp_min(1e-12).log())
        self.quats = nn.Parameter(nn.functional.normalize(gaussians.quats[0], dim=-1))
        self.logit_opacities = nn.Parameter(gaussians.opacities[0].clamp(*OPACITY_RANGE).logit())
        self.color = nn.Parameter(gaussians.sh[0, :, :1].clone())
        self.shading = nn.Parameter(gaussians.sh[0, :, 1:].clone())

    def forward(self) -> Gaussians:
        """The Gaussians now, one scene."""
        return Gaussians(
            (self.base + self.offsets * self.reach[:, None])[None],
            nn.functional.normalize(self.quats, dim=-1)[None],
            self.log_scales.exp()[None],
            self.logit_opacities.sigmoid()[None],
            torch.cat([self.color, self.shading], 1)[None],
        )

    def parameter_groups(self, settings: Rates, *, colors_only: bool = False) -> list[dict]:
        """Parameters with their step sizes."""
        color_rate = settings.color_rate / SH_C0
        rates = {"color": color_rate, "shading": color_rate / 20}
        if not colors_only:
            rates |= {
                "offsets": settings.mean_rate,
                "log_scales": settings.scale_rate,
                "quats": settings.quat_rate,
                "logit_opacities": settings.opacity_rate,
            }
        return [{"params": [getattr(self, name)], "lr": rate} for name, rate in rates.items()]

    @torch.no_grad()
    def prune(self, threshold: float, optimiser: torch.optim.Adam) -> int:
        """Removes Gaussians of lower opacity, and their part of the optimiser's memory; returns how many."""
        keep = self.logit_opacities.sigmoid() >= threshold
        removed = int((~keep).sum())
        if removed and keep.any():
            self.take(keep.nonzero().squeeze(1), optimiser)
        return removed if keep.any() else 0

    @torch.no_grad()
    def take(self, index: Tensor, optimiser: torch.optim.Optimizer, fresh: int = 0) -> None:
        """Rearranges the rows of every parameter, with the moments that Adam keeps for them.

        Args:
            index: Rows as they are now, in their new order; some may come twice.
            optimiser: Of the parameters.
            fresh: How many of the last rows are new and have no moments yet.
        """
        self.base, self.reach = self.base[index], self.reach[index]
        for parameter in self.parameters():
            parameter.data = parameter.data[index]
            parameter.grad = None
            state = optimiser.state.get(parameter, {})
            for name in ("exp_avg", "exp_avg_sq"):
                if name in state:
                    state[name] = state[name][index]
                    state[name][len(index) - fresh :] = 0


def _reach(gaussians: Gaussians, cameras: Cameras) -> Float[Tensor, "n"]:
    """Distance of each Gaussian from the nearest camera."""
    return torch.cdist(gaussians.means[0], cameras.centers[0]).amin(1)
