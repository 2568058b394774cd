"""Colours of Gaussians from real spherical harmonics, as every 3DGS viewer evaluates them."""

import torch
from jaxtyping import Float
from torch import Tensor

MAX_EVALUATED_DEGREE = 3

# Constants of the real spherical harmonics with the Condon-Shortley phase, in the order and with the signs
# of the original 3DGS code. Source: Sloan, "Stupid Spherical Harmonics (SH) Tricks", GDC 2008, appendix A2.
SH0 = 0.28209479177387814
SH1 = 0.4886025119029199
SH2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
SH3 = (
    0.5900435899266435,
    2.890611442640554,
    0.4570457994644658,
    0.3731763325901154,
    1.445305721320277,
)


def sh_basis(directions: Float[Tensor, "*b 3"], degree: int) -> Float[Tensor, "*b k"]:
    """Values of the (degree + 1)^2 basis functions in unit directions."""
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, SH0)]
    if degree >= 1:
        basis += [-SH1 * y, SH1 * z, -SH1 * x]
    if degree >= 2:
        basis += [
            SH2[0] * x * y,
            -SH2[0] * y * z,
            SH2[1] * (3 * z * z - 1),
            -SH2[0] * x * z,
            SH2[2] * (x * x - y * y),
        ]
    if degree >= 3:
        basis += [
            -SH3[0] * y * (3 * x * x - y * y),
            SH3[1] * x * y * z,
            -SH3[2] * y * (5 * z * z - 1),
            SH3[3] * z * (5 * z * z - 3),
            -SH3[2] * x * (5 * z * z - 1),
            SH3[4] * z * (x * x - y * y),
            -SH3[0] * x * (x * x - 3 * y * y),
        ]
    return torch.stack(basis, -1)


def sh_to_color(
    sh: Float[Tensor, "*b k 3"], directions: Float[Tensor, "*b 3"], degree: int
) -> Float[Tensor, "*b 3"]:
    """RGB seen along unit directions: max(0, 0.5 + sum of coefficient times basis).

    Args:
        sh: Coefficients; those beyond `degree` are not read.
        directions: Unit vectors from the camera centre to the Gaussian, in world axes.
        degree: Highest degree evaluated, 0 to 3.
    """
    basis = sh_basis(directions, degree)
    return (0.5 + (basis[..., None] * sh[..., : basis.shape[-1], :]).sum(-2)).clamp_min(0)
