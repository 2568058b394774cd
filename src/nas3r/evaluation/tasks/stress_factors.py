"""Difficulties of synthetic worlds, each with its levels."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from nas3r.data.posed import PosedScene
from nas3r.data.synthetic import SyntheticConfig
from nas3r.evaluation.overlap import OVERLAP_SIZE, pairwise_overlap
from nas3r.evaluation.protocols import ViewSet

_TARGETS = 2
_OVERLAP_TOLERANCE = 0.05

# What every world has unless a factor changes it.
BASE = SyntheticConfig(field_of_view=(60.0, 60.0), baseline=(0.4, 0.4), rotation=(20.0, 20.0))


@dataclass(frozen=True)
class Factor:
    """One difficulty.

    Attributes:
        label: With its unit.
        levels: From easy or usual to hard.
        config: The worlds at a level.
        views: Number of context views at a level.
        select: Views of a scene at a level, None if the scene has none; by default evenly along the path.
    """

    label: str
    levels: tuple[float, ...]
    config: Callable[[float], SyntheticConfig]
    views: Callable[[float], int] = lambda level: 2
    select: Callable[[PosedScene, float], ViewSet | None] | None = None

    def view_set(self, scene: PosedScene, level: float) -> ViewSet | None:
        """What is evaluated of a scene."""
        if self.select is not None:
            return self.select(scene, level)
        return spread_views(len(scene), self.views(level))


def spread_views(length: int, views: int, targets: int = _TARGETS) -> ViewSet:
    """First and last frame and evenly spaced ones as context; targets from the middles of the gaps."""
    context = [round(k * (length - 1) / (views - 1)) for k in range(views)]
    between = [t for t in range(length) if t not in context]
    chosen = [between[int((k + 0.5) * len(between) / targets)] for k in range(targets)]
    return ViewSet(tuple(context), tuple(chosen), None, "unknown")


def _view_set_of_overlap(scene: PosedScene, level: float) -> ViewSet | None:
    """The pair whose measured overlap is nearest to the level; targets between its frames."""
    overlap = pairwise_overlap(scene.read(range(len(scene)), OVERLAP_SIZE, OVERLAP_SIZE))
    distance = (overlap - level).abs()
    count = len(scene)
    apart = torch.arange(count)[None] - torch.arange(count)[:, None] > _TARGETS
    distance[~apart] = torch.inf
    place = int(distance.argmin())
    first, last = divmod(place, count)
    if float(distance[first, last]) > _OVERLAP_TOLERANCE:
        return None
    inside = spread_views(last - first + 1, 2)
    targets = tuple(first + t for t in inside.targets)
    return ViewSet((first, last), targets, float(overlap[first, last]), "unknown")


FACTORS: dict[str, Factor] = {
    "baseline": Factor(
        "distance of the outer views (mean depths)",
        (0.05, 0.1, 0.2, 0.4, 0.8, 1.6),
        lambda x: replace(BASE, baseline=(x, x)),
    ),
    "overlap": Factor(
        "overlap of the outer views",
        (0.9, 0.7, 0.5, 0.3, 0.1),
        lambda x: replace(BASE, baseline=(1.0, 1.0), rotation=(60.0, 60.0)),
        select=_view_set_of_overlap,
    ),
    "views": Factor(
        "context views",
        (2, 3, 4, 6, 8, 10),
        lambda x: replace(BASE, baseline=(0.8, 0.8), rotation=(40.0, 40.0)),
        views=int,
    ),
    "focal": Factor(
        "field of view (degrees)", (30, 45, 60, 75, 90, 110), lambda x: replace(BASE, field_of_view=(x, x))
    ),
    "distortion": Factor(
        "radial distortion k", (0.0, 0.05, 0.1, 0.2, 0.3), lambda x: replace(BASE, distortion=x)
    ),
    "exposure": Factor(
        "exposure change (stops)", (0.0, 0.5, 1.0, 2.0, 3.0), lambda x: replace(BASE, exposure=x)
    ),
    "noise": Factor(
        "noise (standard deviation)", (0.0, 0.02, 0.05, 0.1, 0.2), lambda x: replace(BASE, noise=x)
    ),
    "blur": Factor(
        "defocus (share of the image width)", (0.0, 0.005, 0.01, 0.02, 0.04), lambda x: replace(BASE, blur=x)
    ),
    "moving": Factor(
        "share of objects that move", (0.0, 0.25, 0.5, 0.75, 1.0), lambda x: replace(BASE, moving=x)
    ),
}
