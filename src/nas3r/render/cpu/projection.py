"""Projection of Gaussians to the table of splats by compiled kernels; the twin is `render.projection`."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.render.checks import check_cameras, check_gaussians
from nas3r.render.cpu.kernels.columns import COLUMNS
from nas3r.render.cpu.kernels.lanes import CHUNK
from nas3r.render.cpu.kernels.projection import project as project_kernel
from nas3r.render.cpu.kernels.projection_backward import project_backward
from nas3r.render.cpu.parallel import parallel_for
from nas3r.render.cpu.table import SplatTable


def project(
    gaussians: Gaussians, cameras: Cameras, height: int, width: int, *, sh_degree: int, near: float
) -> SplatTable:
    """Projects every Gaussian into every view of its batch element.

    Args:
        gaussians: In world coordinates, float32 on the CPU.
        cameras: Of the same batch.
        height: Image height in pixels.
        width: Image width in pixels.
        sh_degree: Highest spherical-harmonics degree evaluated.
        near: Gaussians whose centre is nearer than this z-depth are culled.

    Raises:
        ValueError: If a value is not finite or a focal length not positive.
    """
    check_cameras(cameras)
    settings = np.float32(near), np.float32(height), np.float32(width), sh_degree
    rows, finite = _Project.apply(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.sh.flatten(2),
        _camera_rows(cameras, height, width),
        settings,
    )
    if not finite:
        check_gaussians(gaussians, sh_degree)
    return SplatTable(rows)


def _camera_rows(cameras: Cameras, height: int, width: int) -> Float[Tensor, "b v 20"]:
    """What the kernels need of each camera, in the order of `kernels.lanes`."""
    camera_from_world = cameras.camera_from_world
    k = cameras.pixel_intrinsics(width, height)
    intrinsics = [k[..., 0, 0], k[..., 1, 1], k[..., 0, 1], k[..., 0, 2], k[..., 1, 2]]
    return torch.cat(
        [
            camera_from_world[..., :3, :3].flatten(2),
            camera_from_world[..., :3, 3],
            torch.stack(intrinsics, -1),
            cameras.centers,
        ],
        -1,
    )


class _Project(torch.autograd.Function):
    """Parameters and camera rows to rows of the table [b, v, n, COLUMNS], and whether all were finite."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        *tensors, settings = arguments
        arrays = [x.detach().contiguous().numpy() for x in tensors]
        (b, n), v = arrays[0].shape[:2], arrays[-1].shape[1]
        tasks = b * -(-n // CHUNK)
        table, finite = np.empty((b, v, n, COLUMNS), np.float32), np.empty(tasks, np.bool_)
        parallel_for(project_kernel, tasks, *arrays, *settings, table, finite)
        ctx.state = arrays, settings, tasks
        return torch.from_numpy(table), bool(finite.all())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        arrays, settings, tasks = ctx.state
        grad_table = grads[0].contiguous().numpy()
        *gaussians, sh, cameras = arrays
        grad_gaussians = [np.empty_like(x) for x in gaussians]
        grad_sh = np.empty_like(sh if ctx.needs_input_grad[4] else sh[:0])
        grad_cameras = np.empty((len(cameras), tasks // max(len(cameras), 1), *cameras.shape[1:]), np.float32)
        parallel_for(
            project_backward,
            tasks,
            *arrays,
            *settings,
            grad_table,
            *grad_gaussians,
            grad_sh,
            grad_cameras,
        )
        results: list[Tensor | None] = [torch.from_numpy(x) for x in grad_gaussians]
        results.append(torch.from_numpy(grad_sh) if ctx.needs_input_grad[4] else None)
        # Chunks are added in their order, in double precision: a pose gradient sums over every Gaussian.
        results.append(torch.from_numpy(grad_cameras.sum(1, dtype=np.float64).astype(np.float32)))
        return *results, None
