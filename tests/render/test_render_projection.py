"""The projection: derivatives, outside oracles, and the compiled twin."""

import pytest
import torch
from render_scenes import HEIGHT, WIDTH, degenerate_scenes, random_scene

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.render.projection import LOW_PASS, project_gaussians
from nas3r.render.spherical_harmonics import sh_to_color

NEAR = 0.01
OUTPUTS = ("means2d", "conics", "depths", "colors", "opacities")


def scene_with_every_branch() -> tuple[Gaussians, Cameras]:
    """Six Gaussians: three in view, one beyond the field-of-view clamp on each axis, one behind."""
    gaussians, cameras = random_scene(11, b=1, v=2, n=6)
    gaussians.means[0, :3] *= torch.tensor([0.3, 0.3, 1.0])
    gaussians.means[0, 3] = torch.tensor([4.0, 0.1, 1.5])
    gaussians.means[0, 4] = torch.tensor([0.1, -4.0, 1.5])
    gaussians.means[0, 5, 2] = -2.0
    return gaussians, cameras


def test_gradients_in_double_precision():
    gaussians, cameras = scene_with_every_branch()
    inputs = [getattr(gaussians, name) for name in gaussians.__dataclass_fields__]
    inputs += [cameras.world_from_camera, cameras.intrinsics]

    def project(*inputs):
        splats = project_gaussians(
            Gaussians(*inputs[:5]), Cameras(*inputs[5:]), HEIGHT, WIDTH, sh_degree=3, near=NEAR
        )
        return tuple(getattr(splats, name) for name in OUTPUTS)

    assert torch.autograd.gradcheck(project, [x.detach().requires_grad_() for x in inputs])


def gsplat_projection(gaussians: Gaussians, cameras: Cameras):
    """Centres, conics and depths from gsplat's torch code."""
    twin = pytest.importorskip("gsplat.cuda._torch_impl")
    covariances, _ = twin._quat_scale_to_covar_preci(gaussians.quats, gaussians.scales, compute_preci=False)
    _, means2d, depths, conics, _ = twin._fully_fused_projection(
        gaussians.means, covariances, cameras.camera_from_world, cameras.pixel_intrinsics(WIDTH, HEIGHT),
        WIDTH, HEIGHT, eps2d=LOW_PASS, near_plane=NEAR,
    )  # fmt: skip
    return {"means2d": means2d, "conics": conics, "depths": depths}


def test_agrees_with_gsplat_in_values_and_gradients():
    gaussians, cameras = scene_with_every_branch()
    cameras.intrinsics[..., 0, 1] = 0
    leaves = {name: getattr(gaussians, name).requires_grad_() for name in ("means", "quats", "scales")}
    leaves |= {name: getattr(cameras, name).requires_grad_() for name in cameras.__dataclass_fields__}
    splats = project_gaussians(gaussians, cameras, HEIGHT, WIDTH, sh_degree=0, near=NEAR)
    theirs = gsplat_projection(gaussians, cameras)
    in_front = theirs["depths"] > NEAR
    assert in_front.sum() == 10  # of 12: one of six is behind both cameras

    losses = []
    for expected_of in (lambda name: getattr(splats, name), theirs.__getitem__):
        generator = torch.Generator().manual_seed(3)
        values = [expected_of(name)[in_front] for name in theirs]
        weights = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in values]
        losses.append(sum((w * x).sum() for w, x in zip(weights, values, strict=True)))
    for name, expected in theirs.items():
        torch.testing.assert_close(getattr(splats, name)[in_front], expected[in_front], rtol=1e-9, atol=1e-9)
    ours, expected = (torch.autograd.grad(loss, list(leaves.values())) for loss in losses)
    used = torch.eye(3, dtype=torch.float64)
    used[:, 2] = 1
    for name, a, b in zip(leaves, ours, expected, strict=True):
        if name == "intrinsics":
            a, b = a * used, b * used  # gsplat leaves the skew out of the Jacobian
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7 * b.abs().max().item(), msg=name)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_harmonics_agree_with_gsplat(degree):
    twin = pytest.importorskip("gsplat.cuda._torch_impl")
    directions = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=-1)
    sh = torch.randn(50, 25, 3, dtype=torch.float64)
    expected = (twin._spherical_harmonics(degree, directions, sh) + 0.5).clamp_min(0)
    # Their constants carry 13 digits.
    torch.testing.assert_close(sh_to_color(sh, directions, degree), expected, rtol=1e-9, atol=1e-9)


def test_needles_stay_positive_definite_in_single_precision():
    gaussians, cameras = (x.to(torch.float32) for x in random_scene(12, b=1, v=1, n=200))
    gaussians.scales[:] = torch.tensor([50.0, 1e-6, 1e-6])
    conics = project_gaussians(gaussians, cameras, HEIGHT, WIDTH, sh_degree=0, near=NEAR).conics.double()
    assert (conics[..., 0] > 0).all()
    # No splat is wider than its low-pass allows: the largest eigenvalue of the conic is at most 1 / LOW_PASS.
    assert (conics[..., 0] + conics[..., 2] <= (1 + 1e-5) / LOW_PASS + conics[..., 2].clamp_max(0.1)).all()


def test_radii_enclose_what_is_seen():
    gaussians, cameras = random_scene(13, b=1, v=1, n=30)
    splats = project_gaussians(gaussians, cameras, HEIGHT, WIDTH, sh_degree=0, near=NEAR)
    a, b, c = splats.conics.unbind(-1)
    angles = torch.linspace(0, 2 * torch.pi, 720, dtype=torch.float64)[:, None, None, None]
    dx, dy = angles.cos(), angles.sin()
    # Farthest point of the ellipse alpha = 1/255 in each direction.
    q_max = 2 * (255 * splats.opacities).log()
    reach = (q_max / (a * dx**2 + 2 * b * dx * dy + c * dy**2)).sqrt()
    extent = torch.stack([(reach * dx).amax(0), (reach * dy).amax(0)], -1)
    visible = splats.visible
    assert visible.any()
    # The grid of directions is half a degree fine, so the farthest point is found to about 1e-4.
    torch.testing.assert_close(extent[visible], splats.radii[visible], rtol=1e-3, atol=0)


# Opacities of 1/255 are seen or not by one rounding.
@pytest.mark.parametrize(
    "name", [None, *sorted(degenerate_scenes().keys() - {"opacity at the skip threshold"})]
)
def test_compiled_projection_is_its_twin(name):
    """Every column of the table, and the gradient of every input from random gradients of the columns."""
    from nas3r.render import cpu
    from nas3r.render.cpu.kernels.columns import DIFFERENTIABLE, RADIUS_X, XX, YY
    from nas3r.render.cpu.table import SplatTable

    # Without a name: three chunks of Gaussians, the last one partial.
    gaussians, cameras = degenerate_scenes()[name]() if name else random_scene(14, n=1100)
    options = {"sh_degree": 3, "near": NEAR}

    def run(project, dtype):
        leaves = [getattr(gaussians, field) for field in gaussians.__dataclass_fields__]
        leaves += [cameras.world_from_camera, cameras.intrinsics]
        leaves = [x.float().to(dtype).detach().requires_grad_() for x in leaves]
        splats = project(Gaussians(*leaves[:5]), Cameras(*leaves[5:]), HEIGHT, WIDTH, **options)
        rows = splats.rows if isinstance(splats, SplatTable) else SplatTable.from_splats(splats).rows
        weights = torch.randn(rows.shape, generator=torch.Generator().manual_seed(5)).to(dtype)
        visible = rows[..., RADIUS_X] > 0  # the others get no gradient from a compositor
        # Conics of large splats are tiny: each splat's are weighted by their size.
        weights[..., XX : YY + 1] /= (rows[..., XX] + rows[..., YY]).detach()[..., None]
        (rows * weights)[..., :DIFFERENTIABLE][visible].sum().backward()
        return visible, rows.detach().double(), [x.grad.double() for x in leaves]

    visible, rows, grads = run(cpu.project, torch.float32)
    visible_twin, rows_twin, grads_twin = run(project_gaussians, torch.float64)
    assert torch.equal(visible, visible_twin)
    # float32 has 7 digits; some cancel in sums over the axes and, in gradients, over Gaussians and views.
    for column in range(rows.shape[-1]):
        a, b = rows[..., column][visible], rows_twin[..., column][visible]
        assert b.numel() == 0 or (a - b).abs().max() <= 1e-5 * b.abs().max().clamp_min(1)
    for a, b in zip(grads, grads_twin, strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max().clamp_min(0.05)
