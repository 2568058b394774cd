"""Depth and normals of views at nearly the photos' own size, by PatchMatch multi-view stereo.

It starts from a model's coarse depth and from points that are known exactly, and goes from coarse to fine.
`plane_cost` says how unlike two views are on a plane, `propagation` looks for better planes, `two_way` says
what other views confirm, and `filling` what stands where none does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nas3r.consistency.filling import carried_by, filled
from nas3r.consistency.propagation import choose_views, improve
from nas3r.consistency.sources import source_views
from nas3r.consistency.two_way import agreement
from nas3r.geometry import Cameras, project
from nas3r.render.cpu.parallel import parallel_for

_UNSURE = 0.2  # confidence below which the search begins anew at the next size


@dataclass(frozen=True)
class PatchMatchConfig:
    """How dense depth is looked for.

    Attributes:
        rounds: At every size, each half of the next, coarse to fine.
        sources: Views that each is compared with, at most.
        compared: Of these the ones that a pixel is compared with, the most alike.
        spread: Of the logarithm of random depths in the first round; a third after each.
        tilt: Of random slants, likewise.
    """

    rounds: tuple[int, ...] = (4, 3, 2)
    sources: int = 5
    compared: int = 3
    spread: float = 0.2
    tilt: float = 0.6


@dataclass(frozen=True)
class DenseViews:
    """What views show, in the unit of their poses.

    Attributes:
        depth: z-depth [v, h, w].
        normals: Towards the view, in its frame [v, 3, h, w].
        confidence: In [0, 1]: how far other views confirm the depth [v, h, w].
    """

    depth: Float[Tensor, "v h w"]
    normals: Float[Tensor, "v 3 h w"]
    confidence: Float[Tensor, "v h w"]


@torch.no_grad()
def dense_depth(
    images: Float[Tensor, "v 3 h w"],
    cameras: Cameras,
    coarse: Float[Tensor, "v hc wc"],
    points: Float[Tensor, "p 3"] | None = None,
    seen: Sequence[Int[Tensor, "m"]] | None = None,
    config: PatchMatchConfig | None = None,
) -> DenseViews:
    """Depth, normals and confidence at the size of the images.

    Args:
        images: In [0, 1], of at least two views.
        cameras: Of the views, exact; batch of one.
        coarse: z-depth to start from, at a smaller size, in the unit of the poses.
        points: Of the scene, in the world, that depth should meet.
        seen: Of every view the points that it shows.
        config: How.

    Raises:
        ValueError: If there are fewer than two views, or numbers of views differ.
    """
    config = config or PatchMatchConfig()
    views = len(images)
    if views < 2 or len(coarse) != views or cameras.num_views != views:
        raise ValueError(
            f"dense depth: expected at least two views with cameras and coarse depth each, got {views} "
            f"images, {cameras.num_views} cameras and {len(coarse)} depth maps"
        )
    inverse = 1 / coarse.clamp_min(1e-6)
    if points is not None and seen is not None:
        inverse = inverse / _fitting(cameras, inverse, points, seen)
    sources = source_views(cameras, 1 / inverse, config.sources)
    grey = (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    levels = len(config.rounds)
    planes, began = None, inverse
    confidence = unsure = torch.zeros(0)
    for level, rounds in enumerate(config.rounds):
        factor = 2 ** (levels - 1 - level)
        small = F.avg_pool2d(grey[:, None], factor)[:, 0].numpy() if factor > 1 else grey.numpy()
        search = _Search(np.ascontiguousarray(small), cameras, sources, config)
        began = _resized(began, search.size)
        planes = _start(began) if planes is None else _renewed(_grown(planes, search.size), began, unsure)
        planes, cost = search.run(planes, began.numpy(), rounds, 10 * level)
        confidence = search.confidence(planes, cost)
        began = filled(torch.from_numpy(planes[..., 0]), confidence, _resized(inverse, search.size))
        unsure = confidence < _UNSURE
    return DenseViews(1 / began, search.normals(torch.from_numpy(planes), began, confidence), confidence)


class _Search:
    """The search at one size."""

    def __init__(
        self, greys: np.ndarray, cameras: Cameras, sources: list[list[int]], config: PatchMatchConfig
    ) -> None:
        self.greys, self.sources, self.config = greys, sources, config
        self.size = greys.shape[1:]
        height, width = self.size
        self.matrices = cameras.pixel_intrinsics(width, height)[0].double().numpy()
        self.poses = cameras.camera_from_world[0].double().numpy()

    def run(
        self, planes: np.ndarray, began: np.ndarray, rounds: int, step: int
    ) -> tuple[np.ndarray, np.ndarray]:
        height = self.size[0]
        cost = np.empty(planes.shape[:-1], np.float32)
        for view, sources in enumerate(self.sources):
            warps = np.stack([self.warp(view, s) for s in sources]).astype(np.float32)
            index = np.array(sources)
            k = min(self.config.compared, len(sources))
            chosen = np.zeros((*self.size, k), np.int64)
            matrix = self.matrices[view]
            lens = matrix[[0, 1, 0, 1], [0, 1, 2, 2]].astype(np.float32)
            shared = (view, self.greys, warps, index, planes[view], chosen, cost[view], began[view])
            for r in range(rounds):
                parallel_for(choose_views, height, *shared)
                shrink = 3.0 ** -(r + step / 10)
                for color in (0, 1):
                    spread, tilt = self.config.spread * shrink, self.config.tilt * shrink
                    parallel_for(improve, height, *shared, lens, color, step + r, spread, tilt)
        return planes, cost

    def warp(self, view: int, source: int) -> np.ndarray:
        """M by rows, then t; see `plane_cost`."""
        relative = self.poses[source] @ np.linalg.inv(self.poses[view])
        matrix = self.matrices[source] @ relative[:3, :3] @ np.linalg.inv(self.matrices[view])
        return np.concatenate([matrix.ravel(), self.matrices[source] @ relative[:3, 3]])

    def confidence(self, planes: np.ndarray, cost: np.ndarray) -> Float[Tensor, "v h w"]:
        """How far views confirm each other's planes."""
        inverse = np.ascontiguousarray(planes[..., 0])
        confidence = np.empty_like(inverse)
        for view, sources in enumerate(self.sources):
            forth = np.stack([self.warp(view, s) for s in sources])
            back = np.stack([self.warp(s, view) for s in sources])
            parallel_for(
                agreement,
                self.size[0],
                inverse,
                cost[view],
                forth,
                back,
                np.array([*sources, view]),
                confidence[view],
            )
        return torch.from_numpy(confidence)

    def normals(
        self, planes: Float[Tensor, "v h w 3"], w: Float[Tensor, "v h w"], confidence: Float[Tensor, "v h w"]
    ) -> Float[Tensor, "v 3 h w"]:
        """Of the planes where they are sure, of the filled surface elsewhere; a plane n X = 1 has n below."""
        height, width = self.size
        x = torch.arange(width).to(w) + 0.5
        y = (torch.arange(height).to(w) + 0.5)[:, None]
        normals = w.new_empty(len(w), 3, height, width)
        for view, matrix in enumerate(self.matrices):
            (fx, _, cx), (_, fy, cy), _ = matrix
            slope = torch.stack(torch.gradient(w[view], dim=(1, 0)), -1)
            sure = (confidence[view] > 0.5)[..., None]
            gx, gy = torch.where(sure, planes[view, ..., 1:], slope).unbind(-1)
            nz = w[view] - gx * (x - cx) - gy * (y - cy)
            normals[view] = -F.normalize(torch.stack([gx * fx, gy * fy, nz]), dim=0)
        return normals


def _start(inverse: Float[Tensor, "v h w"]) -> np.ndarray:
    """Planes of a surface that is given by its inverse depth."""
    smooth = F.avg_pool2d(inverse[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
    gy, gx = torch.gradient(smooth, dim=(1, 2))
    return torch.stack([inverse, gx, gy], -1).contiguous().numpy()


def _renewed(
    planes: np.ndarray, inverse: Float[Tensor, "v h w"], unsure: Bool[Tensor, "v hc wc"]
) -> np.ndarray:
    """The planes, but those of the surface where nothing confirmed them at the size before."""
    again = F.interpolate(unsure[:, None].float(), size=inverse.shape[1:], mode="nearest")[:, 0] > 0
    return np.where(again.numpy()[..., None], _start(inverse), planes)


def _grown(planes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Planes at a larger size: of the pixel that shows the same place, continued to the new ones."""
    height, width = size
    rows = (np.arange(height) + 0.5) * planes.shape[1] / height
    columns = (np.arange(width) + 0.5) * planes.shape[2] / width
    r, c = rows.astype(int), columns.astype(int)
    near = planes[:, r[:, None], c]
    fine = near.copy()
    fine[..., 0] += near[..., 1] * (columns - c - 0.5) + near[..., 2] * (rows - r - 0.5)[:, None]
    fine[..., 0] = np.where(fine[..., 0] > 0, fine[..., 0], near[..., 0])
    fine[..., 1] *= planes.shape[2] / width
    fine[..., 2] *= planes.shape[1] / height
    return np.ascontiguousarray(fine)


def _resized(maps: Float[Tensor, "v h w"], size: tuple[int, ...]) -> Float[Tensor, "v h2 w2"]:
    return F.interpolate(maps[:, None], size=tuple(size), mode="bilinear")[:, 0].contiguous()


def _fitting(
    cameras: Cameras,
    inverse: Float[Tensor, "v h w"],
    points: Float[Tensor, "p 3"],
    seen: Sequence[Int[Tensor, "m"]],
) -> Float[Tensor, "v h w"]:
    """What to multiply coarse depth by, so that it meets the points; smooth in between."""
    factors = []
    for view, index in enumerate(seen):
        xy, z = project(cameras.views([view]), points[index][None])
        factors.append(carried_by(xy[0, 0], z[0, 0], inverse[view]))
    return torch.stack(factors)
