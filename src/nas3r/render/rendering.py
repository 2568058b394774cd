"""`render`: Gaussians and cameras in; colour, depth and alpha out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.render.checks import check_compatible
from nas3r.render.compositing import Composite
from nas3r.render.projection import project_gaussians
from nas3r.render.spherical_harmonics import MAX_EVALUATED_DEGREE

Backend = Literal["auto", "reference", "cpu", "cuda", "gsplat", "triton"]
DepthMode = Literal["expected", "median"]


@dataclass(frozen=True)
class Rendering:
    """Rendered views.

    Attributes:
        color: RGB over the background [b, v, 3, h, w]; at least 0, above 1 where the harmonics say so.
        depth: z-depth in the unit of the poses [b, v, h, w]; 0 where alpha is 0.
        alpha: Opacity in [0, 1) [b, v, h, w].
    """

    color: Float[Tensor, "b v 3 h w"]
    depth: Float[Tensor, "b v h w"]
    alpha: Float[Tensor, "b v h w"]


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    height: int,
    width: int,
    *,
    background: Tensor | None = None,
    sh_degree: int | None = None,
    backend: Backend = "auto",
    depth_mode: DepthMode = "expected",
    near: float = 0.01,
) -> Rendering:
    """Renders every batch element's Gaussians into each of its cameras.

    Differentiable with respect to the Gaussians, the background, the poses and the intrinsics.

    Args:
        gaussians: In world coordinates.
        cameras: Any number of views for each batch element.
        height: Image height in pixels.
        width: Image width in pixels.
        background: RGB seen where nothing is opaque, [3] or [b, 3]; black by default.
        sh_degree: Highest degree of the spherical harmonics that is evaluated, at most 3 and at most what is
            stored. By default all of them; a stored degree 4 is never evaluated, as in every standard viewer.
        backend: "cpu" is the compiled compositor for float32 on the CPU; "triton" ours for float32 on a GPU,
            which needs nothing but a CUDA build of torch; "gsplat" gsplat's, which has to be installed and
            compiled. "cuda" is "gsplat" where that can be had, for it has run on many GPUs, else "triton".
            "reference" is plain torch for any dtype and device (memory grows as pixels times Gaussians).
            "auto" takes the fastest that fits: "cpu", "cuda", or for float64 "reference".
        depth_mode: "expected" is the mean of the depths weighted by their part in the pixel; "median" the
            depth of the Gaussian at which half of the pixel's alpha is reached; its gradient reaches that
            Gaussian alone.
        near: Gaussians whose centre is not beyond this z-depth, in the unit of the poses, are culled.

    Returns:
        Colour, depth and alpha. Without Gaussians: the background; without views: tensors with v = 0.

    Raises:
        ValueError: If shapes, dtypes, devices or options do not fit together or a value is not finite.
        ModuleNotFoundError: If what the backend needs is not installed; for "cuda" neither Triton nor gsplat.
        RuntimeError: If the backend "gsplat" is asked for and its CUDA code cannot be built.
    """
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise ValueError(f"height, width: expected positive integers, got {height!r}, {width!r}")
    if not near > 0:
        raise ValueError(f"near: expected a positive depth, got {near!r}")
    if depth_mode not in get_args(DepthMode):
        raise ValueError(f"depth_mode: expected one of {get_args(DepthMode)}, got {depth_mode!r}")
    check_compatible(gaussians, cameras)
    background = _background(background, gaussians)
    degree = _sh_degree(sh_degree, gaussians)

    project, composite = _backend(backend, gaussians.means)
    splats = project(gaussians, cameras, height, width, sh_degree=degree, near=near)
    blended: Composite = composite(splats, height, width, median=depth_mode == "median")

    color = blended.color + (1 - blended.alpha)[:, :, None] * background[:, None, :, None, None]
    if blended.median_index is None:
        depth = _normalised(blended.depth, blended.alpha)
    else:
        depth = _gather_depth(splats.depths, blended.median_index)
    return Rendering(color, depth, blended.alpha)


def _background(background: Tensor | None, gaussians: Gaussians) -> Float[Tensor, "b 3"]:
    means = gaussians.means
    if background is None:
        return means.new_zeros(means.shape[0], 3)
    if background.shape not in ((3,), (means.shape[0], 3)):
        raise ValueError(
            f"background: expected shape [3] or [{means.shape[0]}, 3], got {list(background.shape)}"
        )
    if background.device != means.device or background.dtype != means.dtype:
        raise ValueError(
            f"background: expected {means.dtype} on {means.device}, "
            f"got {background.dtype} on {background.device}"
        )
    if not torch.isfinite(background.detach()).all():
        raise ValueError("background: expected finite values")
    return background.expand(means.shape[0], 3)


def _sh_degree(sh_degree: int | None, gaussians: Gaussians) -> int:
    highest = min(gaussians.sh_degree, MAX_EVALUATED_DEGREE)
    if sh_degree is None:
        return highest
    if not 0 <= sh_degree <= highest:
        raise ValueError(f"sh_degree: expected 0 to {highest} for these Gaussians, got {sh_degree}")
    return sh_degree


def _backend(backend: Backend, like: Tensor) -> tuple[Callable[..., Any], Callable[..., Composite]]:
    """Projection and compositor of a backend; imports them, and what they compile, on first use."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend: expected one of {get_args(Backend)}, got {backend!r}")
    if backend == "auto":
        backend = "reference" if like.dtype != torch.float32 else "cuda" if like.is_cuda else "cpu"
    if backend == "reference":
        from nas3r.render import reference

        return project_gaussians, reference.composite
    device = "cpu" if backend == "cpu" else "cuda"
    if like.device.type != device or like.dtype != torch.float32:
        raise ValueError(
            f"backend {backend!r}: expected float32 on {device}, got {like.dtype} on {like.device}"
        )
    if backend == "cpu":
        from nas3r.render import cpu

        return cpu.project, cpu.composite
    from nas3r.render import cuda

    return project_gaussians, cuda.compositor(backend)


def _normalised(depth: Tensor, alpha: Tensor) -> Tensor:
    """Mean depth: the accumulated depth divided by alpha, 0 where nothing was hit."""
    hit = alpha > 0
    return torch.where(hit, depth / torch.where(hit, alpha, torch.ones_like(alpha)), torch.zeros_like(depth))


def _gather_depth(depths: Float[Tensor, "b v n"], index: Tensor) -> Float[Tensor, "b v h w"]:
    """Depths of the Gaussians named by `index`, 0 where it is -1."""
    flat = index.flatten(2)
    if depths.shape[-1] == 0:
        return depths.new_zeros(index.shape)
    picked = depths.gather(-1, flat.clamp_min(0))
    return torch.where(flat >= 0, picked, torch.zeros_like(picked)).unflatten(-1, index.shape[2:])
