"""Gaussians fitted to photos at full size, whose cameras are exact.

Unlike `bundle`, which looks for cameras too, this changes what there is: it starts from dense surfaces, fits
every parameter of every Gaussian, and divides and removes Gaussians on the way.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.refine.budget import Budget
from nas3r.refine.density import DensityConfig, Pull, renew
from nas3r.refine.exposure import Exposure
from nas3r.refine.fitted_views import ViewOrder
from nas3r.refine.free import FreeGaussians
from nas3r.refine.photometric import photometric_error, views_psnr
from nas3r.render import Rendering, render

_APART = 0.2  # difference in logarithmic depth from which a view sees something else


@dataclass(frozen=True)
class FitSettings:
    """Settings of `fit`. Rates are steps of Adam, in the unit named.

    Attributes:
        levels: Share of the budget from which images have a scale, in order; coarse to fine.
        last_rate: Of all rates at the end, as a share of the first; they fall evenly in the logarithm.
        mean_rate: Of centres, in distances from the nearest camera.
        scale_rate: Relative.
        quat_rate: Of unit quaternions.
        opacity_rate: In logits.
        color_rate: In units of colour.
        exposure_rate: In logarithms, and units of colour; 0 for the same exposure of all photos.
        ssim_weight: Weight of the structural term beside the absolute error, in [0, 1].
        depth_weight: Of the error of logarithmic depth, where depth is sure.
        sure: Confidence from which it is.
        measurements: On photos kept aside, after the one of the start.
        density: How Gaussians are divided and removed.
        seed: Of the order of views, and of places.
    """

    levels: tuple[tuple[float, float], ...] = ((0.0, 0.5), (0.25, 1.0))
    last_rate: float = 0.05
    mean_rate: float = 1.2e-3
    scale_rate: float = 1e-2
    quat_rate: float = 2e-3
    opacity_rate: float = 5e-2
    color_rate: float = 1e-2
    exposure_rate: float = 0.0
    ssim_weight: float = 0.2
    depth_weight: float = 0.0
    sure: float = 0.5
    measurements: int = 3
    density: DensityConfig = field(default_factory=DensityConfig)
    seed: int = 0


@dataclass(frozen=True)
class PhotosAside:
    """Photos that only measure: in [0, 1], with exact cameras."""

    images: Float[Tensor, "t 3 h w"]
    cameras: Cameras


@dataclass(frozen=True)
class SureDepth:
    """z-depth of the views in the unit of the poses, and how sure it is, in [0, 1]."""

    depth: Float[Tensor, "v h w"]
    confidence: Float[Tensor, "v h w"]


@dataclass(frozen=True)
class FitResult:
    """What was found.

    Attributes:
        gaussians: The best state on photos kept aside, the start among them; without such photos the last.
        steps: That were made.
        seconds: That it took.
        psnr: In dB, mean of the photos kept aside, at the start and of the result; None without any.
    """

    gaussians: Gaussians
    steps: int
    seconds: float
    psnr: tuple[float, float] | None


@torch.enable_grad()
def fit(
    gaussians: Gaussians,
    cameras: Cameras,
    images: Float[Tensor, "v 3 h w"],
    budget: Budget,
    *,
    aside: PhotosAside | None = None,
    depth: SureDepth | None = None,
    settings: FitSettings | None = None,
) -> FitResult:
    """Fits Gaussians to photos, one view a step.

    Args:
        gaussians: To start from; batch of one.
        cameras: Of the views, exact; batch of one.
        images: The views in [0, 1].
        budget: Of steps or seconds; measurements count.
        aside: Photos that decide what is returned.
        depth: That renderings should meet where it is sure.
        settings: How.

    Raises:
        ValueError: If numbers of views differ, or there are no Gaussians.
    """
    if gaussians.num_gaussians == 0 or cameras.num_views != len(images):
        raise ValueError(
            f"fit: expected Gaussians, and a camera for each of {len(images)} images, got "
            f"{gaussians.num_gaussians} Gaussians and {cameras.num_views} cameras"
        )
    settings = settings or FitSettings()
    run = _Fit(gaussians.detach(), cameras.detach(), images, depth, settings)
    if aside is None:
        run.until(1.0, budget)
        return FitResult(run.free().detach(), budget.steps, budget.seconds, None)
    best, start = gaussians, _psnr(gaussians, aside)
    highest = start
    budget.reserve = budget.seconds  # the last measurement takes about as long as the first
    for number in range(1, settings.measurements + 1):
        run.until(number / settings.measurements, budget)
        began = budget.seconds
        state = run.free().detach()
        if (now := _psnr(state, aside)) > highest:
            best, highest = state, now
        budget.reserve = budget.seconds - began
    return FitResult(best, budget.steps, budget.seconds, (start, highest))


def _psnr(gaussians: Gaussians, aside: PhotosAside) -> float:
    return views_psnr(gaussians, aside.cameras, aside.images)


class _Fit:
    """Gaussians on their way, and what moves them."""

    def __init__(
        self,
        gaussians: Gaussians,
        cameras: Cameras,
        images: Float[Tensor, "v 3 h w"],
        depth: SureDepth | None,
        settings: FitSettings,
    ) -> None:
        self.cameras, self.images, self.depth, self.settings = cameras, images, depth, settings
        self.free = FreeGaussians(gaussians, cameras)
        self.exposure = Exposure(len(images))
        groups = [g for g in self.free.parameter_groups(settings) if g["params"][0].numel()]
        groups.append({"params": list(self.exposure.parameters()), "lr": settings.exposure_rate})
        self.optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)
        self._rates = [group["lr"] for group in self.optimiser.param_groups]
        self._order = ViewOrder(list(range(len(images))), settings.seed)
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._pull = Pull(gaussians.num_gaussians)
        self._rounds = 0

    def until(self, end: float, budget: Budget) -> None:
        """Steps until a share of the budget is spent."""
        for _ in budget.until(end):
            self._step(budget.progress)

    def _step(self, progress: float) -> None:
        settings, density = self.settings, self.settings.density
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * settings.last_rate**progress
        if self._rounds < density.rounds and progress >= density.until * (self._rounds + 1) / density.rounds:
            renew(self.free, self.optimiser, self._pull.mean, density, self._generator)
            self._pull = Pull(len(self.free.base))
            self._rounds += 1
        scale = [level for begin, level in settings.levels if progress >= begin][-1]
        loss = self._error(self._order.next(1)[0], scale)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        if self.free.offsets.grad is not None:
            self._pull.add(self.free.offsets.grad, 1 / scale)

    def _error(self, view: int, scale: float) -> Float[Tensor, ""]:
        """Of one view, at a scale."""
        photo = self.images[view][None]
        height, width = (round(side * scale) for side in photo.shape[-2:])
        if scale != 1:
            photo = F.interpolate(photo, size=(height, width), mode="area")
        shown = render(self.free(), self.cameras.views([view]), height, width)
        color = shown.color[0, 0]
        if self.settings.exposure_rate:
            color = self.exposure(color, view)
        error = photometric_error(color[None], photo, self.settings.ssim_weight)
        if self.depth is None or not self.settings.depth_weight:
            return error
        return error + self.settings.depth_weight * self._depth_error(shown, view)

    def _depth_error(self, shown: Rendering, view: int) -> Float[Tensor, ""]:
        """Mean absolute difference of logarithmic depths, where they are sure and something is shown."""
        assert self.depth is not None
        maps = torch.stack([self.depth.depth[view], self.depth.confidence[view]])[None]
        depth, confidence = F.interpolate(maps, size=shown.depth.shape[-2:], mode="nearest")[0]
        sure = (confidence > self.settings.sure) & (shown.alpha[0, 0] > 0)
        if not sure.any():
            return depth.new_zeros(())
        apart = (shown.depth[0, 0][sure] / depth[sure]).log().abs()
        return (apart.clamp_max(_APART) * shown.alpha[0, 0][sure].detach()).mean()
