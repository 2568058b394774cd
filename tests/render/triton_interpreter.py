"""What tests of the Triton compositor run in the process where Triton interprets kernels, on the CPU."""

from dataclasses import fields, replace

import torch
from render_scenes import assert_close, degenerate_scenes, random_scene, values_and_gradients

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.render import reference, rendering
from nas3r.render.compositing import Composite
from nas3r.render.cuda import triton_compositor
from nas3r.render.projection import Splats, project_gaussians

# As for the compiled compositor, relative to the largest value: float32 projection and blending, measured up
# to 4e-5. A GPU's exponential and division are off by two units in the last place; those here are exact.
TOLERANCE = 2e-4
# The same without projection; measured up to 6e-6.
SPLAT_TOLERANCE = 3e-5


def compare(scene: str | dict[str, int], **options) -> None:
    """Values and gradients of every input against the reference.

    Args:
        scene: Name of a degenerate scene, of which a part is taken, or arguments of `random_scene`.
        **options: Of `render`.
    """
    gaussians, cameras = _smaller(scene) if isinstance(scene, str) else random_scene(**scene)
    expected = values_and_gradients(gaussians, cameras, dtype=torch.float64, backend="reference", **options)
    # By its name the backend would refuse tensors on the CPU.
    choose = rendering._backend
    rendering._backend = lambda *_: (project_gaussians, triton_compositor.composite)
    try:
        actual = values_and_gradients(gaussians, cameras, dtype=torch.float32, **options)
    finally:
        rendering._backend = choose
    assert_close(actual, expected, TOLERANCE)


def _smaller(name: str) -> tuple[Gaussians, Cameras]:
    """What shows the point of a degenerate scene, its first Gaussians in one view: interpreting is slow."""
    gaussians, cameras = degenerate_scenes()[name]()
    gaussians = gaussians.scene(0).select(slice(0, 30))
    camera = Cameras(cameras.world_from_camera[:1, :1], cameras.intrinsics[:1, :1])
    return gaussians, camera


def compare_splats(scene: dict[str, int], height: int, width: int) -> None:
    """Planes, median index and gradients of every column of the splats, from the same float32 splats.

    Every third splat is opaque, and large enough to saturate pixels around its centre.
    """
    gaussians, cameras = random_scene(**scene)
    splats = project_gaussians(gaussians, cameras, height, width, sh_degree=0, near=0.01)
    splats = replace(splats, opacities=splats.opacities.clone())
    splats.opacities[:, :, ::3] = 1
    splats.conics[:, :, ::3] /= 16
    splats.radii[:, :, ::3] *= 8  # 4, and more for the opacity
    results = []
    for composite, dtype in (
        (reference.composite, torch.float64),
        (triton_compositor.composite, torch.float32),
    ):
        leaves = {f.name: getattr(splats, f.name).float().to(dtype).detach() for f in fields(splats)}
        for name in leaves.keys() - {"radii"}:
            leaves[name].requires_grad_()
        out: Composite = composite(Splats(**leaves), height, width, median=True)
        planes = torch.cat([out.color, out.depth[:, :, None], out.alpha[:, :, None]], 2)
        weights = torch.randn(planes.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        (planes * weights.to(dtype)).sum().backward()
        result = {"planes": planes.detach(), "median": out.median_index}
        result |= {f"d {name}": x.grad for name, x in leaves.items() if x.requires_grad}
        results.append({name: x.double() for name, x in result.items()})
    expected, actual = results
    assert torch.equal(actual.pop("median"), expected.pop("median"))
    assert_close(actual, expected, SPLAT_TOLERANCE)


def hidden_splats() -> None:
    """Splats of which one pixel sees ever less: the gradient of each is precise for its own size."""
    n = 24  # seen by 0.7^n = 2e-4 at last
    generator = torch.Generator().manual_seed(1)
    gradients = []
    for composite, dtype in (
        (reference.composite, torch.float64),
        (triton_compositor.composite, torch.float32),
    ):
        opacities = torch.full((1, 1, n), 0.3, dtype=dtype, requires_grad=True)
        splats = Splats(
            means2d=torch.full((1, 1, n, 2), 0.5, dtype=dtype),
            conics=torch.tensor([1.0, 0.0, 1.0], dtype=dtype).expand(1, 1, n, 3),
            depths=torch.arange(1, n + 1, dtype=dtype).expand(1, 1, n),
            colors=torch.rand(1, 1, n, 3, generator=generator.manual_seed(1)).to(dtype),
            opacities=opacities,
            radii=torch.ones(1, 1, n, 2, dtype=dtype),
        )
        composite(splats, 1, 1).color.sum().backward()
        assert opacities.grad is not None
        gradients.append(opacities.grad.double())
    expected, actual = gradients
    assert expected.abs().min() < 1e-2 * expected.abs().max()
    # Measured: 6e-6, and 2e-4 where what is behind a splat was all less what is in front of it.
    assert ((actual - expected).abs() / expected.abs()).max() < 3e-5


def nothing(b: int, v: int, n: int, median: bool) -> None:
    """Without splats: zeros, and a backward pass that works."""
    shape = b, v, n
    columns = {"means2d": 2, "conics": 3, "colors": 3, "radii": 2}
    values = {name: torch.zeros(*shape, size, requires_grad=True) for name, size in columns.items()}
    values |= {name: torch.zeros(shape, requires_grad=True) for name in ("depths", "opacities")}
    out = triton_compositor.composite(Splats(**values), 5, 7, median=median)
    assert out.color.shape == (b, v, 3, 5, 7)
    assert not out.color.any()
    assert not out.depth.any()
    assert not out.alpha.any()
    if median:
        assert out.median_index is not None
        assert (out.median_index == -1).all()
    out.color.sum().backward()
    gradient = values["conics"].grad
    assert gradient is not None
    assert not gradient.any()


def same_bits_again() -> None:
    """Gradients are added in a fixed order."""
    gaussians, cameras = random_scene(6, b=1, v=1, n=40)
    splats = project_gaussians(
        gaussians.to(torch.float32), cameras.to(torch.float32), 11, 19, sh_degree=0, near=0.01
    )
    means2d = splats.means2d.requires_grad_()
    grads = [
        torch.autograd.grad(triton_compositor.composite(splats, 11, 19).color.sum(), means2d)[0]
        for _ in range(2)
    ]
    assert torch.equal(*grads)
