"""Gaussians for the surfaces that views share: one for a piece of surface, not one for every view of it.

Of the views that agree on a point, the one that sees it most surely and closely keeps it. Squares of pixels
that are smooth in colour and depth become one Gaussian; how smooth they must be follows from the budget.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from nas3r.consistency.patch_match import DenseViews
from nas3r.consistency.reprojection import nearest_views, reproject
from nas3r.gaussians import SH_C0, Gaussians
from nas3r.geometry import Cameras, pixel_grid, quat_from_matrix, unproject

_MOST_VIEWS = 8  # that a view is compared with
_DEPTH = 0.02  # relative difference up to which views speak of one surface
_COLOR = 0.15  # ditto, root mean square over the channels
_LEAD = 0.9  # share of the best view's merit from which another keeps its own Gaussian: closes seams
_BASE = 0.1  # merit of what nothing confirms
_THROUGH = 0.95  # depth, relative to what another view is sure of, before which nothing can be
_SURE = 0.5
_UNSURE, _BLUR = 0.1, 2  # confidence below which squares of that side are one
_SMOOTHEST, _STEP, _STEPS = 0.02, 1.6, 6  # range of colours in a square, tried until the budget holds
_BEND = 0.01  # range of the logarithm of depth in a square, per pixel of its side


@dataclass(frozen=True)
class SurfaceConfig:
    """How surfaces become Gaussians.

    Attributes:
        most: Gaussians, at most.
        footprint: Standard deviation in pixels of one that stands for a pixel.
        thickness: Along the normal, as a share of that.
        flattest: Cosine between ray and normal up to which Gaussians are stretched.
        opacity: Of what views agree on.
        unsure: Of what nothing confirms.
        square: Largest side in pixels of what one Gaussian stands for; a power of two.
    """

    most: int = 500_000
    footprint: float = 0.4
    thickness: float = 0.2
    flattest: float = 0.3
    opacity: float = 0.95
    unsure: float = 0.3
    square: int = 8


@torch.no_grad()
def surface_gaussians(
    images: Float[Tensor, "v 3 h w"],
    cameras: Cameras,
    dense: DenseViews,
    config: SurfaceConfig | None = None,
) -> Gaussians:
    """Gaussians of the pieces of surface that the views show.

    Args:
        images: In [0, 1].
        cameras: Of the views, batch of one.
        dense: What they show.
        config: How.

    Returns:
        Batch of one, SH degree 0.

    Raises:
        ValueError: If sizes differ.
    """
    config = config or SurfaceConfig()
    if images.shape[-2:] != dense.depth.shape[-2:] or len(images) != len(dense.depth):
        raise ValueError(
            f"surfaces: expected depth of the images' size {list(images.shape)}, "
            f"got {list(dense.depth.shape)}"
        )
    kept, standing = _shared_out(images, cameras, dense)
    kept &= standing > 0
    squares = _within_budget(images, dense, kept, config)
    pieces = [_lifted(images, cameras, dense, standing, side, chosen, config) for side, chosen in squares]
    gaussians = Gaussians.cat([piece for piece in pieces if piece.num_gaussians])
    if gaussians.num_gaussians > config.most:
        order = gaussians.opacities[0].argsort(descending=True, stable=True)
        gaussians = gaussians.select(order[: config.most].sort().values)
    return gaussians


def _shared_out(
    images: Float[Tensor, "v 3 h w"], cameras: Cameras, dense: DenseViews
) -> tuple[Bool[Tensor, "v h w"], Float[Tensor, "v h w"]]:
    """Which pixels keep their point; of the views that are sure there, how many do not look through.

    View by view, so that memory does not grow by more than the maps themselves.
    """
    kept, standing = (torch.empty_like(dense.depth, dtype=kind) for kind in (torch.bool, dense.depth.dtype))
    nearest = nearest_views(cameras, _MOST_VIEWS)
    for view in range(len(images)):
        others = [int(index[0, view]) for index in nearest]
        kept[view], standing[view] = _beside_others(view, others, images, cameras, dense)
    return kept, standing


def _beside_others(
    view: int, others: list[int], images: Float[Tensor, "v 3 h w"], cameras: Cameras, dense: DenseViews
) -> tuple[Bool[Tensor, "h w"], Float[Tensor, "h w"]]:
    """The same of one view, beside some others."""

    def maps(index: int) -> Float[Tensor, "6 h w"]:
        """Depth, confidence, merit and colours."""
        depth, confidence = dense.depth[index, None], dense.confidence[index, None]
        return torch.cat([depth, confidence, (_BASE + confidence) / depth, images[index]])

    h, w = images.shape[-2:]
    xy = pixel_grid(h, w).flatten(0, 1)[None, None]
    points = unproject(cameras.views([view]), xy, dense.depth[view].flatten()[None, None])
    mine = maps(view).flatten(1)
    best = mine[2].clone()
    through = torch.zeros_like(best)
    met = torch.full_like(best, 0.5)
    for other in others:
        at = reproject(points, cameras, torch.tensor([[other]]))
        there, inside = at.look_up(maps(other)[None, None])[0, 0], at.inside[0, 0]
        ratio = at.depth[0, 0] / there[0]
        off = (there[3:] - mine[3:]).square().mean(0).sqrt()
        same = inside & ((ratio - 1).abs() < _DEPTH) & (off < _COLOR)
        best = torch.where(same, torch.maximum(best, there[2]), best)
        sure = inside & (there[1] > _SURE)
        through += sure & (ratio < _THROUGH)
        met += sure & ((ratio - 1).abs() < 1 - _THROUGH)
    return (mine[2] >= _LEAD * best).view(h, w), (met / (met + through)).view(h, w)


def _within_budget(
    images: Float[Tensor, "v 3 h w"],
    dense: DenseViews,
    kept: Bool[Tensor, "v h w"],
    config: SurfaceConfig,
) -> list[tuple[int, Bool[Tensor, "v ch cw"]]]:
    """Sides, and which squares of that side one Gaussian stands for: as small ones as the budget allows."""
    sizes = []
    side = config.square
    while side > 1:
        colors = _extent(images, side).amax(1)
        bend = _extent(dense.depth.log()[:, None], side)[:, 0] / (_BEND * side)
        sure = F.max_pool2d(dense.confidence[:, None], side)[:, 0] > _UNSURE
        detail = torch.maximum(colors, _SMOOTHEST * bend)
        sizes.append((side, torch.where(sure | (side > _BLUR), detail, 0.0)))
        side //= 2
    for least in (1, 2, 4, 8):
        for step in range(_STEPS):
            squares = list(_squares(sizes, kept, _SMOOTHEST * _STEP**step, min(least, config.square)))
            if sum(int(chosen.sum()) for _, chosen in squares) <= config.most:
                return squares
    return squares


def _squares(
    sizes: list[tuple[int, Float[Tensor, "v ch cw"]]], kept: Bool[Tensor, "v h w"], smooth: float, least: int
) -> Iterator[tuple[int, Bool[Tensor, "v ch cw"]]]:
    """Of every side the squares whose detail is less; then the pixels that are left.

    Args:
        sizes: Sides, the largest first, and how much detail squares of that side have.
        kept: Pixels that are to be covered.
        smooth: The detail up to which a square is one.
        least: The smallest side.
    """
    left = kept.clone()
    for side, detail in sizes:
        if side < least:
            return
        share = F.avg_pool2d(left[:, None].float(), side)[:, 0]
        chosen = share > 0 if side == least else (share > 0.5) & (detail < smooth)
        yield side, chosen
        covered = chosen.repeat_interleave(side, 1).repeat_interleave(side, 2)
        left[:, : covered.shape[1], : covered.shape[2]] &= ~covered
    yield 1, left


def _extent(maps: Float[Tensor, "v c h w"], side: int) -> Float[Tensor, "v c ch cw"]:
    return F.max_pool2d(maps, side) + F.max_pool2d(-maps, side)


def _lifted(
    images: Float[Tensor, "v 3 h w"],
    cameras: Cameras,
    dense: DenseViews,
    standing: Float[Tensor, "v h w"],
    side: int,
    chosen: Bool[Tensor, "v ch cw"],
    config: SurfaceConfig,
) -> Gaussians:
    """Flat Gaussians on the surface, as large as the footprint of their square."""

    def mean(maps: Tensor) -> Tensor:
        pooled = F.avg_pool2d(maps, side) if side > 1 else maps
        return pooled.permute(0, 2, 3, 1)[chosen]

    h, w = images.shape[-2:]
    view = chosen.nonzero()[:, 0]
    rows, columns = ((chosen.nonzero()[:, 1 + i] + 0.5) * side for i in range(2))
    depth = 1 / mean(1 / dense.depth[:, None])[:, 0]
    focal = cameras.intrinsics[0, :, 0, 0][view] * w
    k = cameras.intrinsics[0][view]
    rays = torch.stack(
        [
            (columns / w - k[:, 0, 2]) / k[:, 0, 0],
            (rows / h - k[:, 1, 2]) / k[:, 1, 1],
            torch.ones_like(depth),
        ],
        -1,
    )
    pose = cameras.world_from_camera[0][view]
    means = (pose[:, :3, :3] @ (rays * depth[:, None])[..., None])[..., 0] + pose[:, :3, 3]
    normal = F.normalize(mean(dense.normals), dim=-1)
    ray = F.normalize(rays, dim=-1)
    cosine = -(normal * ray).sum(-1, keepdim=True)
    across = torch.linalg.cross(normal, ray)
    # A surface that is seen straight on has no direction of slant; any will do.
    across = F.normalize(torch.where(cosine < 0.999, across, normal.roll(1, -1)), dim=-1)
    across = F.normalize(across - (across * normal).sum(-1, keepdim=True) * normal, dim=-1)
    along = torch.linalg.cross(across, normal)
    axes = pose[:, :3, :3] @ torch.stack([along, across, normal], -1)
    sigma = (config.footprint * side * depth / focal)[:, None]
    stretch = 1 / cosine.clamp(config.flattest, 1)
    scales = sigma * torch.cat(
        [stretch, torch.ones_like(stretch), torch.full_like(stretch, config.thickness)], -1
    )
    sure = mean(dense.confidence[:, None])[:, 0].clamp(0, 1)
    opacity = config.unsure + (config.opacity - config.unsure) * (2 * sure).clamp_max(1)
    opacity = opacity * mean(standing[:, None])[:, 0]
    return Gaussians(
        means=means[None],
        quats=quat_from_matrix(axes)[None],
        scales=scales[None],
        opacities=opacity[None],
        sh=((mean(images) - 0.5) / SH_C0)[None, :, None],
    )
