"""What a user would do instead: COLMAP's cameras and points, and 3D Gaussian splatting from there.

Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", SIGGRAPH 2023, by this package's
rasteriser and for a stated time.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.evaluation.baselines.colmap_scene import ColmapScene, colmap_scene
from nas3r.gaussians import SH_C0, Gaussians
from nas3r.refine.budget import Budget
from nas3r.refine.density import DensityConfig
from nas3r.refine.fitting import FitSettings, fit
from nas3r.refine.locate import locate_views
from nas3r.render import render

_NEIGHBOURS = 3  # whose mean distance is the first size of a Gaussian, as published
_LARGER = 2.0  # times that; points are few, and what none covers teaches nothing for a long time
_OPACITY = 0.5  # published are 0.1, for a hundred times as many steps
_LEAST = 4  # points to begin with
_DEGREE = 1  # of colour by direction: more is not seen by a dozen views
_ROWS = 512  # of distances at a time

# A minute of one core is a thousand steps, not thirty thousand, so rates are several times those published.
# They are those of our own fitting; on eight photos of the fox they give 18.3 dB of photos kept aside, and
# smaller ones 16.6.
_SETTINGS = FitSettings(density=DensityConfig(most=200_000, share=0.3, rounds=8, until=0.6))


def colmap_splatting(
    context: Float[Tensor, "c 3 h w"],
    targets: Float[Tensor, "t 3 h w"],
    *,
    seconds: float | None = None,
    steps: int | None = None,
) -> Float[Tensor, "t 3 h w"] | None:
    """Renderings of targets from Gaussians that were fitted to the context.

    Targets teach nothing. They are located in COLMAP's model by their matches, and their poses are then
    aligned with the Gaussians by their own pixels, as the field does where no poses are known.

    Args:
        context: In [0, 1], at full size.
        targets: Likewise.
        seconds: Limit of the fitting; COLMAP's own time comes on top.
        steps: Limit of its steps; one of both is needed.

    Returns:
        NaN for targets that cannot be located; None if COLMAP finds no model.

    Raises:
        ModuleNotFoundError: If pycolmap is not installed.
    """
    scene = colmap_scene(context, targets)
    count = len(context)
    if scene is None or len(scene.points) < _LEAST:
        return None
    views = scene.placed[:count].nonzero()[:, 0].tolist()
    budget = Budget(seconds=seconds, steps=steps)
    fitted = fit(
        gaussians_of_points(scene), scene.cameras.views(views), context[views], budget, settings=_SETTINGS
    ).gaussians
    out = torch.full_like(targets, torch.nan)
    found = scene.placed[count:].nonzero()[:, 0].tolist()
    if found:
        start = scene.cameras.views([count + i for i in found])
        cameras = locate_views(fitted, start, targets[found])
        with torch.no_grad():
            out[found] = render(fitted, cameras, *targets.shape[-2:]).color[0].clamp(0, 1)
    return out


def gaussians_of_points(scene: ColmapScene) -> Gaussians:
    """A round Gaussian for every point, twice as large as the mean distance of its nearest neighbours."""
    points = scene.points
    count = len(points)
    neighbours = min(_NEIGHBOURS, count - 1)
    near = [
        torch.cdist(rows, points).topk(neighbours + 1, largest=False).values[:, 1:].mean(1)
        for rows in points.split(_ROWS)
    ]
    sizes = _LARGER * torch.cat(near).clamp_min(1e-7)
    colors = ((scene.colors - 0.5) / SH_C0)[:, None]
    sh = F.pad(colors, (0, 0, 0, (_DEGREE + 1) ** 2 - 1))
    quats = torch.tensor([1.0, 0, 0, 0]).expand(count, 4)
    opacities = torch.full((count,), _OPACITY)
    return Gaussians(
        points[None], quats[None].clone(), sizes[None, :, None].repeat(1, 1, 3), opacities[None], sh[None]
    )
