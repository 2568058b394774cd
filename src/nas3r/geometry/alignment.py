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
    s, t = source - mean_s, target - mean_t
    u, d, vt = torch.linalg.svd(t.mT @ s / source.shape[-2])
    sign = torch.ones_like(d)
    sign[..., 2] = torch.linalg.det(u @ vt).sign()
    rotation = (u * sign[..., None, :]) @ vt
    variance = (s * s).sum((-1, -2)) / source.shape[-2]
    scale = (d * sign).sum(-1) / variance.clamp_min(torch.finfo(source.dtype).tiny)
    scale = torch.where((variance > 0) & torch.tensor(with_scale), scale, torch.ones_like(scale))
    translation = (mean_t - scale[..., None, None] * (mean_s @ rotation.mT)).squeeze(-2)
    return Similarity(scale, rotation, translation)


def align_cameras(
    source: Float[Tensor, "*b n 4 4"], target: Float[Tensor, "*b n 4 4"], *, with_scale: bool = True
) -> Similarity:
    """Similarity that aligns camera centres and orientations of two trajectories.

    Centres alone leave a rotation about their line undetermined for two cameras or a straight path, so the
    rotation is the chordal mean of the cameras' relative rotations (Hartley et al., "Rotation Averaging",
    IJCV 2013, sec. 5.3); scale and translation are then least squares over the centres.

    Args:
        source: Camera-to-world poses to be moved.
        target: Camera-to-world poses they should match.
        with_scale: False for a rigid motion.
    """
    rotation_source, rotation_target = source[..., :3, :3], target[..., :3, :3]
    u, _, vt = torch.linalg.svd((rotation_target @ rotation_source.mT).sum(-3))
    sign = torch.ones_like(u[..., 0, :])
    sign[..., 2] = torch.linalg.det(u @ vt).sign()
    rotation = (u * sign[..., None, :]) @ vt
    s = source[..., :3, 3] @ rotation.mT
    t = target[..., :3, 3]
    mean_s, mean_t = s.mean(-2), t.mean(-2)
    s0, t0 = s - mean_s[..., None, :], t - mean_t[..., None, :]
    variance = (s0 * s0).sum((-1, -2))
    scale = (s0 * t0).sum((-1, -2)) / variance.clamp_min(torch.finfo(source.dtype).tiny)
    usable = (variance > 0) & (scale > 0) & torch.tensor(with_scale)
    scale = torch.where(usable, scale, torch.ones_like(scale))
    return Similarity(scale, rotation, mean_t - scale[..., None] * mean_s)
