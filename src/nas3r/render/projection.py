"""3D Gaussians to 2D splats: EWA projection and view-dependent colour, in plain torch.

Gradients reach everything: means, quaternions, scales, opacities, spherical harmonics, poses and intrinsics
(the focal length inside the Jacobian included). Every compositor takes the `Splats` made here and knows
nothing of cameras.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, matrix_from_quat
from nas3r.render.checks import check_cameras, check_gaussians
from nas3r.render.spherical_harmonics import sh_to_color

LOW_PASS = 0.3  # px^2, added to the projected covariance: no splat is thinner than a pixel
FOV_MARGIN = 0.3  # the Jacobian is evaluated no further than 1 + 0.3 half image widths from the axis
MIN_ALPHA = 1 / 255  # contributions below are skipped, so a splat ends where its alpha falls to this
# Coordinates and footprints in pixels beyond this overflow in float32 once squared twice; they are culled.
MAX_MAGNITUDE = 1e9
MIN_QUAT_SIZE = 1e-15  # quaternions whose largest component is smaller count as zero


@dataclass(frozen=True)
class Splats:
    """Gaussians projected to the image planes of b x v cameras.

    Attributes:
        means2d: Centres in pixels [b, v, n, 2].
        conics: Inverse covariances (xx, xy, yy) in 1/px^2 [b, v, n, 3].
        depths: z in camera coordinates [b, v, n].
        colors: RGB, at least 0 [b, v, n, 3].
        opacities: [b, v, n].
        radii: Half width and half height in pixels of the region where alpha reaches 1/255 [b, v, n, 2];
            zero for splats that are culled. Carries no gradient.
    """

    means2d: Float[Tensor, "b v n 2"]
    conics: Float[Tensor, "b v n 3"]
    depths: Float[Tensor, "b v n"]
    colors: Float[Tensor, "b v n 3"]
    opacities: Float[Tensor, "b v n"]
    radii: Float[Tensor, "b v n 2"]

    @property
    def visible(self) -> Tensor:
        """Which splats reach the image [b, v, n], bool."""
        return self.radii[..., 0] > 0


def project_gaussians(
    gaussians: Gaussians, cameras: Cameras, height: int, width: int, *, sh_degree: int, near: float
) -> Splats:
    """Projects every Gaussian into every view of its batch element.

    Source: Zwicker et al., "EWA Splatting", TVCG 2002, eq. 24 to 28 (affine approximation of the perspective
    projection) and Kerbl et al., "3D Gaussian Splatting", 2023, sec. 4 (covariance from rotation and scale).

    Args:
        gaussians: In world coordinates.
        cameras: Of the same batch.
        height: Image height in pixels.
        width: Image width in pixels.
        sh_degree: Highest spherical-harmonics degree evaluated.
        near: Gaussians whose centre is nearer than this z-depth are culled.

    Raises:
        ValueError: If a value is not finite or a focal length not positive.
    """
    check_cameras(cameras)
    check_gaussians(gaussians, sh_degree)
    camera_from_world = cameras.camera_from_world
    rotation = camera_from_world[..., :3, :3]
    in_camera = gaussians.means[:, None] @ rotation.mT + camera_from_world[..., None, :3, 3]
    # Points behind the camera are replaced before any division, so that nothing they touch can become NaN.
    in_front = (in_camera[..., 2] > near) & (in_camera.abs() < MAX_MAGNITUDE).all(-1)
    in_camera = torch.where(in_front[..., None], in_camera, in_camera.new_tensor([0.0, 0.0, 1.0]))
    means2d, jacobian = _project_points(cameras, in_camera, height, width)

    axes = _rotation(gaussians.quats) * gaussians.scales[..., None, :]  # columns: scaled principal axes
    footprint = jacobian @ rotation[:, :, None] @ axes[:, None]  # 2 x 3, covariance = footprint footprint^T
    footprint, measurable = _without_overflow(footprint)
    conics, variances = _conics(footprint)

    directions = gaussians.means[:, None] - cameras.centers[:, :, None]
    directions = torch.where(in_front[..., None], directions, directions.new_tensor([0.0, 0.0, 1.0]))
    directions = directions / directions.norm(dim=-1, keepdim=True)
    colors = sh_to_color(gaussians.sh[:, None], directions, sh_degree)

    opacities = gaussians.opacities[:, None].expand(in_front.shape)
    radii = _radii(means2d, variances, opacities, in_front & measurable, height, width)
    return Splats(means2d, conics, in_camera[..., 2], colors, opacities, radii)


def _rotation(quats: Tensor) -> Tensor:
    """Rotation matrices; a quaternion of (nearly) zero length counts as no rotation."""
    size = quats.detach().abs().amax(-1, keepdim=True)
    # Their length does not matter, and its square might overflow.
    scaled = quats / size.clamp_min(MIN_QUAT_SIZE)
    return matrix_from_quat(torch.where(size < MIN_QUAT_SIZE, quats.new_tensor([1.0, 0, 0, 0]), scaled))


def _project_points(
    cameras: Cameras, points: Float[Tensor, "b v n 3"], height: int, width: int
) -> tuple[Float[Tensor, "b v n 2"], Float[Tensor, "b v n 2 3"]]:
    """Pixel coordinates of points in camera coordinates, and the Jacobian of the projection there."""
    k = cameras.pixel_intrinsics(width, height)[:, :, None]
    fx, fy, skew, cx, cy = k[..., 0, 0], k[..., 1, 1], k[..., 0, 1], k[..., 0, 2], k[..., 1, 2]
    x, y, z = points.unbind(-1)
    tx, ty = x / z, y / z
    means2d = torch.stack([fx * tx + skew * ty + cx, fy * ty + cy], -1)

    # Far outside the image the affine approximation blows up: the Jacobian is taken at the margin instead.
    margin_x, margin_y = FOV_MARGIN * 0.5 * width / fx, FOV_MARGIN * 0.5 * height / fy
    tx = tx.clamp(-cx / fx - margin_x, (width - cx) / fx + margin_x)
    ty = ty.clamp(-cy / fy - margin_y, (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [fx / z, skew / z, -(fx * tx + skew * ty) / z, zero, fy / z, -fy * ty / z], -1
    ).unflatten(-1, (2, 3))
    return means2d, jacobian


def _without_overflow(footprint: Tensor) -> tuple[Tensor, Tensor]:
    """The footprint, zeroed where its covariance is too large to invert, and where it is not."""
    measurable = (footprint.detach() ** 2).sum((-1, -2)) < MAX_MAGNITUDE**2
    return torch.where(measurable[..., None, None], footprint, torch.zeros_like(footprint)), measurable


def _conics(
    footprint: Float[Tensor, "b v n 2 3"],
) -> tuple[Float[Tensor, "b v n 3"], Float[Tensor, "b v n 2"]]:
    """Inverse of footprint footprint^T + low-pass, and the diagonal of that covariance.

    The determinant of the product is the sum of the squared 2 x 2 minors (Cauchy-Binet): unlike
    xx * yy - xy^2 it cannot cancel, so that needle-like Gaussians stay positive definite in float32.
    """
    u, v = footprint[..., 0, :], footprint[..., 1, :]
    xx, yy, xy = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
    minors = torch.linalg.cross(u, v)
    determinant = (minors * minors).sum(-1) + LOW_PASS * (xx + yy) + LOW_PASS**2
    xx, yy = xx + LOW_PASS, yy + LOW_PASS
    return torch.stack([yy, -xy, xx], -1) / determinant[..., None], torch.stack([xx, yy], -1)


@torch.no_grad()
def _radii(
    means2d: Tensor, variances: Tensor, opacities: Tensor, candidates: Tensor, height: int, width: int
) -> Tensor:
    """Half extents of the ellipse opacity * exp(-q / 2) = 1/255; zero where it misses the image."""
    q_max = 2 * (opacities / MIN_ALPHA).clamp_min(1).log()
    radii = (q_max[..., None] * variances).sqrt()
    # The box must contain a pixel centre: those are half a pixel inside the border.
    low, high = means2d + radii, means2d - radii
    on_screen = (low >= 0.5).all(-1) & (high[..., 0] <= width - 0.5) & (high[..., 1] <= height - 0.5)
    return torch.where((candidates & on_screen)[..., None], radii, torch.zeros_like(radii))
