"""Rotations as quaternions (wxyz), 6D vectors, rotation vectors and matrices."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Below this squared angle (radians^2) the closed forms cancel: in float32, at t = 0.01, (t - sin t) / t^3 is
# off by half a percent and its derivative is noise. Their power series in t^2 are used instead; with eight
# terms the first one left out is under 1e-18 here. Above, at most two digits are lost.
_SMALL_ANGLE_SQUARED = 0.25
_SERIES_TERMS = 8

# Below this s^2 the series 2 asin(s) / s = 2 + s^2 / 3 + 3 s^4 / 20 is off by less than 1e-12; above, nothing
# cancels in atan2.
_SMALL_SINE_SQUARED = 1e-4


def matrix_from_quat(quats: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of quaternions.

    The scale of a quaternion does not matter: the matrix uses 2 / |q|^2, so that gradients are right
    for quaternions that are not normalised. A zero quaternion has no rotation and gives NaN.

    Args:
        quats: Quaternions in wxyz order, any non-zero norm.

    Returns:
        Rotation matrices.
    """
    w, x, y, z = quats.unbind(-1)
    s = 2.0 / (quats * quats).sum(-1)
    rows = [
        1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y),
        s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x),
        s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(*quats.shape[:-1], 3, 3)


def quat_from_matrix(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternions (wxyz, w >= 0) of rotation matrices.

    Of the four algebraically equal candidates (each divides by one component) the one with the largest
    divisor is taken, which keeps values and gradients finite for every rotation.

    Args:
        rotations: Rotation matrices.

    Returns:
        Unit quaternions in wxyz order.
    """
    m = rotations
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = torch.stack(
        [1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22], -1
    )  # (2w)^2, (2x)^2, (2y)^2, (2z)^2
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 2, 0] + m[..., 0, 2], m[..., 2, 1] + m[..., 1, 2]
    sw, sx, sy, sz = squares.unbind(-1)
    candidates = torch.stack(
        [
            torch.stack([sw, wx, wy, wz], -1),
            torch.stack([wx, sx, xy, xz], -1),
            torch.stack([wy, xy, sy, yz], -1),
            torch.stack([wz, xz, yz, sz], -1),
        ],
        -2,
    )  # row i is 4 q_i q
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quat = F.normalize(candidates.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quat[..., :1] < 0, -quat, quat)


def multiply_quats(a: Float[Tensor, "*b 4"], b: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """Hamilton product: the rotation b followed by a (wxyz)."""
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    av, bv = torch.broadcast_tensors(av, bv)
    w = aw * bw - (av * bv).sum(-1, keepdim=True)
    return torch.cat([w, aw * bv + bw * av + torch.linalg.cross(av, bv)], -1)


def matrix_from_rot6d(rot6d: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices whose ROWS are the Gram-Schmidt basis of two 3-vectors.

    Source: Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019.

    Args:
        rot6d: Two concatenated 3-vectors, not parallel.

    Returns:
        Rotation matrices.
    """
    r1 = F.normalize(rot6d[..., :3], dim=-1)
    a2 = rot6d[..., 3:]
    r2 = F.normalize(a2 - (r1 * a2).sum(-1, keepdim=True) * r1, dim=-1)
    return torch.stack([r1, r2, torch.linalg.cross(r1, r2)], -2)


def hat(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Skew-symmetric matrices: `hat(a) @ b == cross(a, b)`."""
    x, y, z = vectors.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(*vectors.shape[:-1], 3, 3)


def _alternating_series(x: Tensor, first: int) -> Tensor:
    """Sum over n of (-x)^n / (2 n + first)!, by Horner's rule."""
    total = torch.zeros_like(x)
    for n in reversed(range(_SERIES_TERMS)):
        total = 1 / math.factorial(2 * n + first) - x * total
    return total


def rodrigues_coefficients(theta_squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sin(t)/t, (1 - cos t)/t^2 and (t - sin t)/t^3 as smooth functions of t^2."""
    small = theta_squared < _SMALL_ANGLE_SQUARED
    t2 = torch.where(small, torch.ones_like(theta_squared), theta_squared)  # keeps both branches finite
    q = torch.where(small, theta_squared, torch.zeros_like(theta_squared))
    t = t2.sqrt()
    a = torch.where(small, _alternating_series(q, 1), t.sin() / t)
    b = torch.where(small, _alternating_series(q, 2), (1 - t.cos()) / t2)
    c = torch.where(small, _alternating_series(q, 3), (t - t.sin()) / (t2 * t))
    return a, b, c


def so3_exp(rotation_vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of rotation vectors (axis times angle in radians); Rodrigues' formula."""
    a, b, _ = rodrigues_coefficients((rotation_vectors**2).sum(-1))
    k = hat(rotation_vectors)
    eye = torch.eye(3, dtype=k.dtype, device=k.device)
    return eye + a[..., None, None] * k + b[..., None, None] * (k @ k)


def so3_log(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Rotation vectors of rotation matrices, angle in [0, pi].

    Goes through the quaternion, which is well conditioned up to and including a half turn.
    """
    quat = quat_from_matrix(rotations)
    w, v = quat[..., :1], quat[..., 1:]
    s2 = (v * v).sum(-1, keepdim=True)
    small = s2 < _SMALL_SINE_SQUARED
    s = torch.where(small, torch.ones_like(s2), s2).sqrt()
    # 2 asin(s) / s around s = 0; w = sqrt(1 - s^2) there.
    factor = torch.where(small, 2 + s2 / 3 + 3 * s2 * s2 / 20, 2 * torch.atan2(s, w) / s)
    return factor * v


def rotation_angle(
    a: Float[Tensor, "*b 3 3"], b: Float[Tensor, "*b 3 3"] | None = None
) -> Float[Tensor, "*b"]:
    """Angle in degrees of the rotation `a`, or between two rotations.

    Uses atan2 of |sin| and cos, which is accurate near 0 and 180 degrees, where acos of the trace is not.
    """
    r = a if b is None else a.mT @ b
    axis = torch.stack(
        [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], -1
    )
    trace = r[..., 0, 0] + r[..., 1, 1] + r[..., 2, 2]
    return torch.rad2deg(torch.atan2(axis.norm(dim=-1), trace - 1))


def angle_between(a: Float[Tensor, "*b n"], b: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """Angle in degrees between vectors; 90 where one of them is zero (no direction is no information)."""
    norm_a, norm_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    degenerate = ((norm_a == 0) | (norm_b == 0)).squeeze(-1)
    u, v = a / norm_a.clamp_min(1e-30), b / norm_b.clamp_min(1e-30)
    # Kahan's formula: accurate for nearly equal and nearly opposite directions.
    angle = 2 * torch.rad2deg(torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1)))
    return torch.where(degenerate, torch.full_like(angle, 90.0), angle)
