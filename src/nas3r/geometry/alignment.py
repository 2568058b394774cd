"""Similarity alignment of point sets and camera trajectories."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation.

    Attributes:
        scale: [*b].
        rotation: [*b, 3, 3].
        translation: [*b, 3].
    """

    scale: Float[Tensor, "*b"]
    rotation: Float[Tensor, "*b 3 3"]
    translation: Float[Tensor, "*b 3"]

    def points(self, points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
        """Transformed points."""
        rotated = points @ self.rotation.mT
        return self.scale[..., None, None] * rotated + self.translation[..., None, :]

    def poses(self, world_from_camera: Float[Tensor, "*b n 4 4"]) -> Float[Tensor, "*b n 4 4"]:
        """Transformed camera-to-world poses (still rigid: the scale moves the centres only)."""
        out = world_from_camera.clone()
        out[..., :3, :3] = self.rotation[..., None, :, :] @ world_from_camera[..., :3, :3]
        out[..., :3, 3] = self.points(world_from_camera[..., :3, 3])
        return out


def align_points(
    source: Float[Tensor, "*b n 3"], target: Float[Tensor, "*b n 3"], *, with_scale: bool = True
) -> Similarity:
    """Least-squares similarity from `source` to `target`.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    PAMI 1991, eq. 40 to 43. With coincident source points the scale is 1.

    Args:
        source: Points to be moved.
        target: Where they should go.
        with_scale: False for a rigid motion.

    Raises:
        ValueError: If shapes differ or there are no points.
    """
    if source.shape != target.shape or source.shape[-1] != 3 or source.shape[-2] == 0:
        raise ValueError(
            f"align_points: expected two equal shapes [..., n >= 1, 3], got {list(source.shape)} and "
            f"{list(target.shape)}"
        )
    mean_s, mean_t = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    rotation = _nearest_rotation((target - mean_t).mT @ (source - mean_s))
    return _scale_and_translation(source, target, rotation, with_scale)


def align_cameras(
    source: Float[Tensor, "*b n 4 4"], target: Float[Tensor, "*b n 4 4"], *, with_scale: bool = True
) -> Similarity:
    """Similarity that aligns camera centres and orientations of two trajectories.

    Centres alone leave a rotation about their line undetermined for two cameras or a straight path, so the
    rotation is the chordal mean of the cameras' relative rotations (Hartley et al., "Rotation Averaging",
    IJCV 2013, sec. 5.3); scale and translation are then least squares over the centres. The scale is 1 where
    the centres do not determine it: all in one place, or moving against each other once rotated.

    Args:
        source: Camera-to-world poses to be moved.
        target: Camera-to-world poses they should match.
        with_scale: False for a rigid motion.

    Raises:
        ValueError: If shapes differ or there are no cameras.
    """
    if source.shape != target.shape or source.shape[-2:] != (4, 4) or source.shape[-3:-2] in ((), (0,)):
        raise ValueError(
            f"align_cameras: expected two equal shapes [..., n >= 1, 4, 4], got {list(source.shape)} and "
            f"{list(target.shape)}"
        )
    rotation = _nearest_rotation((target[..., :3, :3] @ source[..., :3, :3].mT).sum(-3))
    return _scale_and_translation(source[..., :3, 3], target[..., :3, 3], rotation, with_scale)


def _nearest_rotation(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation R that maximises trace(R^T matrix); for a covariance of points, the best alignment."""
    u, _, vt = torch.linalg.svd(matrix)
    sign = torch.ones_like(u[..., 0, :])
    sign[..., 2] = torch.linalg.det(u @ vt).sign()
    return (u * sign[..., None, :]) @ vt


def _scale_and_translation(
    source: Float[Tensor, "*b n 3"],
    target: Float[Tensor, "*b n 3"],
    rotation: Float[Tensor, "*b 3 3"],
    with_scale: bool,
) -> Similarity:
    """Least-squares scale and translation, given the rotation; scale 1 where it is undetermined."""
    rotated = source @ rotation.mT
    mean_s, mean_t = rotated.mean(-2), target.mean(-2)
    s, t = rotated - mean_s[..., None, :], target - mean_t[..., None, :]
    variance = (s * s).sum((-1, -2))
    scale = (s * t).sum((-1, -2)) / variance.clamp_min(torch.finfo(source.dtype).tiny)
    # Coincident points differ from their mean, and from each other once rotated, by rounding alone.
    rounding = 8 * torch.finfo(source.dtype).eps * source.abs().amax((-1, -2))
    spread = variance > source.shape[-2] * rounding**2
    usable = spread & (scale > 0)
    scale = torch.where(usable, scale, torch.ones_like(scale)) if with_scale else torch.ones_like(scale)
    return Similarity(scale, rotation, mean_t - scale[..., None] * mean_s)
