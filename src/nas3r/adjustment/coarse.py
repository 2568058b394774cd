"""What any model says about cameras and depth, as adjustment starts from it: in pixels, in numpy."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.adjustment.bundle import Lenses, State
from nas3r.adjustment.guided import Expected
from nas3r.adjustment.outcome import depth_at
from nas3r.geometry import Cameras, invert_pose

_SQUARE = 0.02  # how far fx and fy may differ, relatively
_GRID = 16  # points a side, of a depth map, that say which views see the same


@dataclass(frozen=True)
class CoarseViews:
    """Cameras and depth of a model.

    Attributes:
        state: The cameras, without points.
        depth: z-depth maps [v, h, w] in the unit of the state.
        size: Width and height in pixels of the images.
    """

    state: State
    depth: Float[Tensor, "v h w"]
    size: tuple[int, int]

    @staticmethod
    def of(
        cameras: Cameras,
        depth: Float[Tensor, "v h w"],
        size: tuple[int, int],
        lens_of_view: Int[np.ndarray, "v"],
    ) -> "CoarseViews":
        """Takes cameras apart.

        Args:
            cameras: Batch of one.
            depth: z-depth of the same part of the scene that the images show, at any size.
            size: Width and height in pixels of the images.
            lens_of_view: Which views were taken with the same lens and zoom, numbered from 0.

        Raises:
            ValueError: If pixels are not square.
        """
        matrices = cameras.pixel_intrinsics(*size)[0].double().numpy()
        across, down = matrices[:, 0, 0], matrices[:, 1, 1]
        if np.abs(across / down - 1).max() > _SQUARE:
            raise ValueError("the pixels of these cameras are not square")
        logs = np.log(across * down) / 2
        count = np.bincount(lens_of_view)
        focal = np.exp(np.bincount(lens_of_view, weights=logs) / count)
        pose = invert_pose(cameras.world_from_camera[0].double()).numpy()
        lenses = Lenses(lens_of_view, focal, np.zeros(len(focal)), matrices[:, :2, 2].copy())
        return CoarseViews(
            State(pose[:, :3, :3].copy(), pose[:, :3, 3].copy(), lenses, np.zeros((0, 3))), depth, size
        )

    def depth_at(self, view: int, xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
        """Depth of a view at pixels of its image."""
        return depth_at(self.depth[view], xy / np.array(self.size))

    def expected(self, view: int, other: int, xy: Float[np.ndarray, "n 2"]) -> Expected:
        """Where pixels of a view are expected in another one."""
        state, lenses = self.state, self.state.lenses
        focal = lenses.focal[lenses.of_view]
        rays = np.concatenate([(xy - lenses.center[view]) / focal[view], np.ones((len(xy), 1))], 1)
        rotation = state.rotations[other] @ state.rotations[view].T
        translation = state.translations[other] - rotation @ state.translations[view]
        there = rays * self.depth_at(view, xy)[:, None] @ rotation.T + translation
        at = lenses.project(there, np.full(len(xy), other))
        # The line joins where the first camera's centre and the ray's far end appear: K^-T (t x R ray).
        normal = np.cross(translation, rays @ rotation.T)
        lines = np.concatenate(
            [normal[:, :2], normal[:, 2:] * focal[other] - normal[:, :2] @ lenses.center[other][:, None]], 1
        )
        lines /= np.maximum(np.linalg.norm(lines[:, :2], axis=1, keepdims=True), 1e-12)
        return Expected(np.where(there[:, 2:] > 0, at, np.nan), lines)

    def overlaps(self) -> Float[np.ndarray, "v v"]:
        """Share of each view's points (rows) that lie within each other view's image."""
        width, height = self.size
        x, y = np.meshgrid(
            (np.arange(_GRID) + 0.5) / _GRID * width, (np.arange(_GRID) + 0.5) / _GRID * height
        )
        grid = np.stack([x.ravel(), y.ravel()], 1)
        views = len(self.state.rotations)
        share = np.zeros((views, views))
        for i in range(views):
            for j in range(views):
                at = self.expected(i, j, grid).xy
                share[i, j] = ((at > 0) & (at < (width, height))).all(1).mean()
        return share
