"""What can be chosen about a refinement."""

from dataclasses import dataclass
from typing import Literal, get_args

Focal = Literal["shared", "per_view", "fixed"]


@dataclass(frozen=True)
class RefineSettings:
    """Settings of `refine`. Rates are steps of Adam, per step, in the unit named.

    Attributes:
        poses: Whether cameras move (the first training camera never does).
        focal: How focal lengths change: "shared" (one factor for all views), "per_view" or "fixed".
        principal_point: Whether principal points change, by one offset for all views.
        levels: Image scales of the alignment stages, coarse to fine; 1 is the size given.
        alignment_share: Part of the budget spent on alignment (cameras and smooth depth), in [0, 1]; the rest
            goes to the Gaussians.
        views_per_step: Views rendered in one step.
        neighbours: Views whose Gaussians are drawn together into another one during alignment.
        depth_grid: Cells a side of the depth correction of a view during alignment.
        ssim_weight: Weight of the structural term beside the absolute error, in [0, 1].
        pose_rate: Radians, and translation in median scene depths.
        focal_rate: Relative.
        locate_rate: As `pose_rate`, of views that are held out while they are located.
        depth_rate: Relative.
        mean_rate: Of the Gaussians' centres, in distances from the nearest camera.
        scale_rate: Relative.
        quat_rate: Of unit quaternions.
        opacity_rate: In logits.
        color_rate: In units of colour (degree 0; higher degrees move 20 times slower).
        prune_opacity: Gaussians that fall below are removed.
        evaluations: Number of measurements in the free stage, denser at its beginning.
        patience: The free stage ends after so many measurements in a row without a gain in it.
        min_gain: What counts as a gain, in dB.
        seed: Of the order of views.
    """

    poses: bool = True
    focal: Focal = "shared"
    principal_point: bool = False
    levels: tuple[float, ...] = (0.25, 0.5, 1.0)
    alignment_share: float = 0.5
    views_per_step: int = 2
    neighbours: int = 4
    depth_grid: int = 6
    ssim_weight: float = 0.2
    pose_rate: float = 3e-3
    focal_rate: float = 3e-3
    locate_rate: float = 3e-3
    depth_rate: float = 5e-3
    mean_rate: float = 5e-4
    scale_rate: float = 1e-2
    quat_rate: float = 5e-3
    opacity_rate: float = 5e-2
    color_rate: float = 5e-3
    prune_opacity: float = 0.005
    evaluations: int = 8
    patience: int = 3
    min_gain: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.levels or any(not 0 < level <= 1 for level in self.levels):
            raise ValueError(f"levels: expected image scales in (0, 1], got {self.levels}")
        if self.focal not in (choices := get_args(Focal)):
            raise ValueError(f"focal: expected one of {', '.join(choices)}, got {self.focal!r}")
        for name in ("alignment_share", "ssim_weight", "prune_opacity"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a number in [0, 1], got {getattr(self, name)}")
        for name in ("views_per_step", "evaluations", "patience", "neighbours"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.depth_grid < 2:
            raise ValueError(f"depth_grid: expected at least 2, got {self.depth_grid}")
        for name in (name for name in self.__dataclass_fields__ if name.endswith("_rate")):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
