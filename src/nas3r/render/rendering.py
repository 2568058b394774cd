"""`render`: Gaussians and cameras in; colour, depth and alpha out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.render.compositing import Composite
from nas3r.render.projection import project_gaussians
from nas3r.render.spherical_harmonics import MAX_EVALUATED_DEGREE

Backend = Literal["auto", "reference", "cpu", "cuda"]
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
        backend: "cpu" is the compiled compositor for float32 on the CPU, "cuda" gsplat's compositor for
            float32 on a GPU, "reference" plain torch for any dtype and device (memory grows as pixels times
            Gaussians). "auto" takes the fastest that fits: "cpu", "cuda", or for float64 "reference".
        depth_mode: "expected" is the mean of the depths weighted by their part in the pixel; "median" the
            depth of the Gaussian at which half of the pixel's alpha is reached; its gradient reaches that
            Gaussian alone.
        near: Gaussians whose centre is not beyond this z-depth, in the unit of the poses, are culled.

    Returns:
        Colour, depth and alpha. Without Gaussians: the background; without views: tensors with v = 0.

    Raises:
        ValueError: If shapes, dtypes, devices or options do not fit together or a value is not finite.
        ModuleNotFoundError: If the backend "cuda" is asked for and gsplat is not installed.
    """
    _check_inputs(gaussians, cameras, height, width, near)
    background = _background(background, gaussians)
    degree = _sh_degree(sh_degree, gaussians)
    if depth_mode not in get_args(DepthMode):
        raise ValueError(f"depth_mode: expected one of {get_args(DepthMode)}, got {depth_mode!r}")

    splats = project_gaussians(gaussians, cameras, height, width, sh_degree=degree, near=near)
    composite = _compositor(backend, gaussians.means)
    blended = composite(splats, height, width, median=depth_mode == "median")

    color = blended.color + (1 - blended.alpha)[:, :, None] * background[:, None, :, None, None]
    if blended.median_index is None:
        depth = _normalised(blended.depth, blended.alpha)
    else:
        depth = _gather_depth(splats.depths, blended.median_index)
    return Rendering(color, depth, blended.alpha)


def _check_inputs(gaussians: Gaussians, cameras: Cameras, height: int, width: int, near: float) -> None:
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise ValueError(f"height, width: expected positive integers, got {height!r}, {width!r}")
    if not near > 0:
        raise ValueError(f"near: expected a positive depth, got {near!r}")
    means, poses = gaussians.means, cameras.world_from_camera
    if means.shape[0] != poses.shape[0]:
        raise ValueError(
            f"cameras: expected a batch of {means.shape[0]} like the Gaussians, got {poses.shape[0]}"
        )
    if means.device != poses.device or means.dtype != poses.dtype:
        raise ValueError(
            f"cameras: expected {means.dtype} on {means.device} like the Gaussians, "
            f"got {poses.dtype} on {poses.device}"
        )
    if means.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"gaussians: expected float32 or float64, got {means.dtype}; disable autocast or convert"
        )
    names = {name: getattr(gaussians, name) for name in gaussians.__dataclass_fields__}
    names |= {name: getattr(cameras, name) for name in cameras.__dataclass_fields__}
    for name, value in names.items():
        finite = torch.isfinite(value.detach())
        if not finite.all():
            raise ValueError(f"{name}: expected finite values, got {int((~finite).sum())} that are not")


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


def _compositor(backend: Backend, like: Tensor) -> Callable[..., Composite]:
    """The compositor of a backend; imports it, and what it compiles, on first use."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend: expected one of {get_args(Backend)}, got {backend!r}")
    if backend == "auto":
        backend = "reference" if like.dtype != torch.float32 else "cuda" if like.is_cuda else "cpu"
    if backend == "reference":
        from nas3r.render import reference

        return reference.composite
    if like.device.type != backend or like.dtype != torch.float32:
        raise ValueError(
            f"backend {backend!r}: expected float32 on {backend}, got {like.dtype} on {like.device}"
        )
    if backend == "cuda":
        from nas3r.render import cuda

        return cuda.composite
    from nas3r.render import cpu

    return cpu.composite


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
