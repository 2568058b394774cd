"""First stage: cameras, focal length and the large-scale depth of each view, coarse to fine.

Each training view is rendered from the Gaussians of OTHER views, so that no view can explain itself: what is
left is bundle adjustment on pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.refine.anchored import AnchoredGaussians
from nas3r.refine.budget import Budget, decay
from nas3r.refine.fitted_views import FittedViews, ViewOrder
from nas3r.refine.neighbours import Neighbours
from nas3r.refine.photometric import covered_error
from nas3r.refine.rig import Rig
from nas3r.refine.settings import RefineSettings
from nas3r.render import render


class DepthGrid(nn.Module):
    """A smooth change of log-depth for each view: values on a grid over the image, bilinear between."""

    def __init__(self, views: int, knots: int, like: Tensor) -> None:
        super().__init__()
        self.knots = knots
        self.values = nn.Parameter(like.new_zeros(views, knots, knots))

    def sample(self, view: Int[Tensor, "n"], xy: Float[Tensor, "n 2"]) -> Float[Tensor, "n"]:
        """Values at normalised image coordinates (the border's beyond the image).

        The mean over all grids is taken out: depths and camera distances can grow together without any
        pixel changing, so the scale is kept.
        """
        position = xy.clamp(0, 1) * (self.knots - 1)
        low = position.floor().clamp(max=self.knots - 2)
        fx, fy = (position - low).unbind(-1)
        column, row = low.long().unbind(-1)
        values = (self.values - self.values.mean()).flatten()
        first = (view * self.knots + row) * self.knots + column

        def corner(down: int, right: int) -> Tensor:
            return values.index_select(0, first + down * self.knots + right)

        top = corner(0, 0) * (1 - fx) + corner(0, 1) * fx
        bottom = corner(1, 0) * (1 - fx) + corner(1, 1) * fx
        return top * (1 - fy) + bottom * fy


@dataclass(frozen=True)
class Alignment:
    """State of the first stage.

    Attributes:
        anchored: Gaussians that ride on training views.
        rig: All cameras.
        depth: Depth correction of each view.
    """

    anchored: AnchoredGaussians
    rig: Rig
    depth: DepthGrid

    def gaussians(self, cameras: Cameras, anchored: AnchoredGaussians | None = None) -> Gaussians:
        """The Gaussians (or a coarser set of them) as the cameras and depths are now."""
        anchored = anchored or self.anchored
        return anchored.follow(cameras, self.depth.sample(anchored.view, anchored.xy))


def align(
    state: Alignment, views: FittedViews, level: float, budget: Budget, end: float, settings: RefineSettings
) -> None:
    """Moves cameras, focal length and depth at one image scale until the budget's fraction `end` is spent."""
    photos = views.at(level)
    h, w = photos.shape[-2:]
    coarse = state.anchored.coarsened(h, w)
    photos = as_rendered(coarse, photos, views.train)
    neighbours = Neighbours(coarse, views.train, settings)
    optimiser = torch.optim.Adam(_parameter_groups(state, settings))
    rates = [group["lr"] for group in optimiser.param_groups]
    order = ViewOrder(neighbours.views, settings.seed)
    for fraction in budget.until(end):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * decay(fraction)
        optimiser.zero_grad(set_to_none=True)
        cameras = state.rig.cameras()
        errors = [
            _prediction_error(state, cameras, coarse.select(neighbours.draw(view)), view, photos, settings)
            for view in order.next(settings.views_per_step)
        ]
        torch.stack(errors).sum().backward()
        optimiser.step()


@torch.no_grad()
def prediction_error(state: Alignment, views: FittedViews, settings: RefineSettings) -> float:
    """How badly the views predict each other, at the finest level: the mean error that alignment lowers."""
    photos = views.at(max(settings.levels))
    coarse = state.anchored.coarsened(photos.shape[-2], photos.shape[-1])
    photos = as_rendered(coarse, photos, views.train)
    cameras = state.rig.cameras()
    neighbours = Neighbours(coarse, views.train, settings)
    errors = [
        _prediction_error(state, cameras, coarse.select(neighbours.draw(view)), view, photos, settings)
        for view in neighbours.views
    ]
    return torch.stack(errors).mean().item()


@torch.no_grad()
def as_rendered(
    anchored: AnchoredGaussians, photos: Float[Tensor, "v 3 h w"], views: list[int]
) -> Float[Tensor, "v 3 h w"]:
    """The photos as the renderer shows them: each drawn by its own Gaussians, where these cover it.

    Splats blur, and on a slanted surface the nearer of two neighbours hides part of the farther one, which
    shifts the picture by a fraction of a pixel. Against the photos themselves that would be mistaken for a
    wrong focal length or pose; against a picture that has the same defects it cancels.
    """
    h, w = photos.shape[-2:]
    shown = photos.clone()
    for view in views:
        own = anchored.gaussians.select(anchored.view == view)
        rendering = render(own, anchored.cameras.views([view]), h, w)
        shown[view] = rendering.color[0, 0] + (1 - rendering.alpha[0, 0]) * photos[view]
    return shown


def _prediction_error(
    state: Alignment,
    cameras: Cameras,
    others: AnchoredGaussians,
    view: int,
    photos: Float[Tensor, "v 3 h w"],
    settings: RefineSettings,
) -> Float[Tensor, ""]:
    """Error of one view, rendered from Gaussians of other views."""
    h, w = photos.shape[-2:]
    rendering = render(state.gaussians(cameras, others), cameras.views([view]), h, w)
    return covered_error(
        rendering.color[0], rendering.alpha[0], photos[view : view + 1], settings.ssim_weight
    )


def _parameter_groups(state: Alignment, settings: RefineSettings) -> list[dict]:
    groups = [{"params": [state.depth.values], "lr": settings.depth_rate}]
    return groups + camera_groups(state.rig, settings)


def camera_groups(rig: Rig, settings: RefineSettings, factor: float = 1.0) -> list[dict]:
    """Parameters of the cameras that may move, with their step sizes times `factor`."""
    groups = []
    if settings.poses:
        groups.append({"params": [rig.twists], "lr": factor * settings.pose_rate})
    if settings.focal != "fixed":
        groups.append({"params": [rig.log_focal], "lr": factor * settings.focal_rate})
    if settings.principal_point:
        groups.append({"params": [rig.principal_shift], "lr": factor * settings.focal_rate})
    return groups
