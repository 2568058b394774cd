"""Scenes for the renderer's tests, and the comparison of a backend with the reference."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, se3_exp
from nas3r.render import Rendering, render

HEIGHT, WIDTH = 21, 37  # not square, not a multiple of any tile or vector


def random_scene(seed: int = 0, *, b: int = 2, v: int = 2, n: int = 50, sh_degree: int = 3):
    """A cloud in front of cameras with off-centre principal points and unequal focal lengths (float64)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    gaussians = Gaussians(
        means=normal(b, n, 3) * 0.8 + torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64),
        quats=normal(b, n, 4),
        scales=uniform(0.02, 0.3, b, n, 3),
        opacities=uniform(0.05, 0.98, b, n),
        sh=normal(b, n, (sh_degree + 1) ** 2, 3) * 0.3,
    )
    intrinsics = torch.tensor([[1.1, 0.02, 0.42], [0, 1.4, 0.57], [0, 0, 1]], dtype=torch.float64)
    cameras = Cameras(se3_exp(normal(b, v, 6) * 0.1), intrinsics + 0 * normal(b, v, 3, 3))
    return gaussians, cameras


def degenerate_scenes() -> dict[str, Callable[[], tuple[Gaussians, Cameras]]]:
    """Scenes that break careless renderers."""

    def changed(**changes: Callable[[Tensor], Tensor]) -> Callable[[], tuple[Gaussians, Cameras]]:
        def build():
            gaussians, cameras = random_scene(7)
            values = {k: change(getattr(gaussians, k).clone()) for k, change in changes.items()}
            return replace(gaussians, **values), cameras

        return build

    def with_first(value: float | Tensor, part: slice = slice(0, 20)) -> Callable[[Tensor], Tensor]:
        def change(x: Tensor) -> Tensor:
            x[:, part] = value
            return x

        return change

    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    return {
        "behind the camera": changed(means=lambda m: m - 6 * axis),
        "around the camera": changed(means=lambda m: m - 3 * axis),
        "camera inside a Gaussian": changed(
            means=with_first(0.05 * axis, slice(0, 1)), scales=with_first(0.5, slice(0, 1))
        ),
        "far off screen": changed(means=lambda m: m + torch.tensor([50.0, 0, 0], dtype=torch.float64)),
        "half off screen": changed(means=lambda m: m + torch.tensor([1.5, 1.0, 0], dtype=torch.float64)),
        "zero opacity": changed(opacities=with_first(0.0)),
        "opacity at the skip threshold": changed(opacities=with_first(1 / 255)),
        "full opacity": changed(opacities=with_first(1.0)),
        "opaque wall": changed(opacities=lambda o: o * 0 + 0.97, scales=lambda s: s * 0 + 1.0),
        "huge": changed(scales=with_first(1e3)),
        "tiny": changed(scales=with_first(1e-9)),
        "zero scale": changed(scales=with_first(0.0)),
        "needles": changed(scales=with_first(torch.tensor([3.0, 1e-4, 1e-4], dtype=torch.float64))),
        "equal depths": changed(
            means=lambda m: m * torch.tensor([1.0, 1, 0], dtype=torch.float64) + 3 * axis
        ),
        "all in one place": changed(means=lambda m: m * 0 + 3 * axis),
        "zero quaternions": changed(quats=with_first(0.0)),
        "long quaternions": changed(quats=lambda q: q * 1e30),
        "distant": changed(means=lambda m: m * 1e12),
        "beyond measure": changed(scales=with_first(1e30)),
        "infinite zoom": lambda: (random_scene(7)[0], _zoomed(random_scene(7)[1], 1e12)),
        "dark": changed(sh=lambda s: s - 3.0),
        "one Gaussian": lambda: (random_scene(7, n=1)[0], random_scene(7)[1]),
    }


def _zoomed(cameras: Cameras, factor: float) -> Cameras:
    return replace(cameras, intrinsics=cameras.intrinsics * torch.tensor([factor, factor, 1]))


LEAVES = ("means", "quats", "scales", "opacities", "sh", "world_from_camera", "intrinsics", "background")


def values_and_gradients(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    dtype: torch.dtype,
    height: int = HEIGHT,
    width: int = WIDTH,
    device: str = "cpu",
    **options,
) -> dict[str, Tensor]:
    """Rendered planes, and gradients of a fixed random functional of them with respect to every input."""
    leaves = [getattr(gaussians, name) for name in LEAVES[:5]]
    leaves += [cameras.world_from_camera, cameras.intrinsics]
    leaves += [torch.linspace(0.1, 0.9, 3 * len(gaussians.means), dtype=torch.float64).unflatten(0, (-1, 3))]
    # Both precisions start from the same float32 numbers, so that only arithmetic differs.
    leaves = [x.float().to(device, dtype).detach().requires_grad_() for x in leaves]
    out: Rendering = render(
        Gaussians(*leaves[:5]), Cameras(*leaves[5:7]), height, width, background=leaves[7], **options
    )
    planes = {"color": out.color, "depth": out.depth, "alpha": out.alpha}
    generator = torch.Generator().manual_seed(99)
    loss = sum(
        (torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) * x).sum()
        for x in planes.values()
    )
    loss.backward()
    result = {name: x.detach().double().cpu() for name, x in planes.items()}
    result |= {f"d {name}": x.grad.double().cpu() for name, x in zip(LEAVES, leaves, strict=True)}
    return result


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Every entry within `tolerance` times the largest magnitude of the expected one.

    The floor is for gradients that vanish by symmetry, where the sum of rounded terms does not.
    """
    for name, value in expected.items():
        assert torch.isfinite(actual[name]).all(), name
        limit = tolerance * max(0.05, value.abs().max().item() if value.numel() else 0.0)
        error = (actual[name] - value).abs().max().item() if value.numel() else 0.0
        assert error <= limit, f"{name}: off by {error:.2e}, allowed {limit:.2e}"
