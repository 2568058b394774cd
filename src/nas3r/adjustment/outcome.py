"""What an adjusted state says, as other rooms take it: cameras, points with their looks, depth's scale."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nas3r.adjustment.bundle import State, residuals
from nas3r.adjustment.keypoints import Keypoints
from nas3r.adjustment.landmarks import Landmarks
from nas3r.adjustment.tracks import Tracks
from nas3r.geometry import Cameras, invert_pose, relative_to_first, sample_maps


@dataclass(frozen=True)
class SparseScene:
    """Points of the scene and where views see them.

    Attributes:
        points: In the world [p, 3].
        error: Mean distance in pixels from where they were seen to where they project [p].
        tracks: The observations, in pixels of the images that were adjusted to.
        landmarks: The points by their looks.
    """

    points: Float[np.ndarray, "p 3"]
    error: Float[np.ndarray, "p"]
    tracks: Tracks
    landmarks: Landmarks


def sparse_scene(state: State, tracks: Tracks, keypoints: Sequence[Keypoints]) -> SparseScene:
    """The points of a state, in the frame of its first view.

    Args:
        state: Adjusted.
        tracks: Of its points.
        keypoints: Of its views.
    """
    off = residuals(state, tracks)
    error = np.add.reduceat(off, tracks.first[:-1]) / np.diff(tracks.first)
    points = state.points @ state.rotations[0].T + state.translations[0]
    # Looks in bytes: they are stored, and located by, as they are.
    looks = np.zeros((len(tracks.view), 128), np.uint8)
    for view, mine in _by_view(tracks, keypoints):
        looks[mine] = np.round(255 * keypoints[view].descriptors[tracks.keypoint[mine]])
    return SparseScene(points, error, tracks, Landmarks(points, tracks.point, looks))


def cameras_of(state: State, size: tuple[int, int]) -> Cameras:
    """Cameras of a state, batch of one, in the frame of its first view.

    Args:
        state: Adjusted.
        size: Width and height in pixels of the images.
    """
    views = len(state.rotations)
    pose = np.tile(np.eye(4), (views, 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = state.rotations, state.translations
    poses = relative_to_first(invert_pose(torch.from_numpy(pose)))
    matrices = np.tile(np.eye(3), (views, 1, 1))
    focal = state.lenses.focal[state.lenses.of_view]
    matrices[:, 0, 0], matrices[:, 1, 1] = focal, focal
    matrices[:, :2, 2] = state.lenses.center
    return Cameras.from_pixels(poses[None], torch.from_numpy(matrices)[None], *size).to(torch.float32)


def exactness(tracks: Tracks, keypoints: Sequence[Keypoints], exact_size: float) -> Float[np.ndarray, "m"]:
    """How much observations count: large keypoints are placed less exactly than small ones.

    Args:
        tracks: The observations.
        keypoints: Of every view.
        exact_size: Of a keypoint that counts half, in pixels.
    """
    size = np.zeros(len(tracks.view))
    for view, mine in _by_view(tracks, keypoints):
        size[mine] = keypoints[view].size[tracks.keypoint[mine]]
    return 1 / (1 + (size / exact_size) ** 2)


def depth_scales(
    state: State,
    tracks: Tracks,
    depth: Float[Tensor, "v h w"],
    size: tuple[int, int],
    tied: Bool[np.ndarray, "v"],
) -> Float[np.ndarray, "v"]:
    """Median of the points' depth by that of depth maps; of views that are not tied, that of the others.

    Args:
        state: Adjusted.
        tracks: Of its points.
        depth: z-depth of the views, at any size.
        size: Width and height in pixels of the images that points were seen in.
        tied: Views whose points are used.
    """
    toward = state.rotations[tracks.view][:, 2]
    away = (toward * state.points[tracks.point]).sum(1) + state.translations[tracks.view][:, 2]
    scale = np.full(len(state.rotations), np.nan)
    for view in np.flatnonzero(tied).tolist():
        mine = tracks.view == view
        coarse = depth_at(depth[view], tracks.xy[mine] / np.array(size))
        known = coarse > 0
        if known.any():
            scale[view] = np.median(away[mine][known] / coarse[known])
    return np.where(np.isfinite(scale), scale, np.nanmedian(scale))


def depth_at(depth: Float[Tensor, "h w"], xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
    """A depth map at normalised coordinates."""
    places = torch.from_numpy(xy).to(depth)
    return sample_maps(depth[None, None, None], places[None, None])[0, 0, 0].double().numpy()


def in_unit(state: State, scale: float) -> State:
    """The state in a unit that is so many times larger."""
    return replace(state, translations=state.translations / scale, points=state.points / scale)


def _by_view(tracks: Tracks, keypoints: Sequence[Keypoints]) -> list[tuple[int, Bool[np.ndarray, "m"]]]:
    return [(view, tracks.view == view) for view in range(len(keypoints))]
