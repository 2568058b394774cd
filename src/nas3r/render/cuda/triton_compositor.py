"""Our compositor for CUDA: tile-binned and depth-sorted by torch, blended by Triton kernels.

Gradients are summed over a tile's pixels, kept for every pair of splat and tile (40 bytes during the backward
pass), and then added up splat by splat. Atomic sums would save that memory, but their order, and with it the
last digits, would differ from run to run.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas3r.render.compositing import Composite
from nas3r.render.cuda import kernels
from nas3r.render.cuda.binning import TileLists, list_splats
from nas3r.render.projection import Splats


def composite(splats: Splats, height: int, width: int, *, median: bool = False) -> Composite:
    """Blends splats front to back.

    Args:
        splats: Of b x v views, float32 on a CUDA device (or on the CPU, in Triton's interpreter).
        height: Image height in pixels.
        width: Image width in pixels.
        median: Whether to find the splat of the median depth.
    """
    shape = splats.depths.shape[:2]
    columns = [splats.means2d, splats.conics, splats.opacities[..., None]]
    table = torch.cat([*columns, splats.colors, splats.depths[..., None]], -1).flatten(0, 1)
    planes, index = _Blend.apply(table, list_splats(splats, height, width), height, width, median)
    planes = planes.unflatten(0, shape)
    index = index.long().unflatten(0, shape) if median else None
    return Composite(planes[:, :, :3], planes[:, :, 3], planes[:, :, 4], index)


class _Blend(torch.autograd.Function):
    """Table of splats [images, n, COLUMNS] to planes (red, green, blue, depth, alpha) [images, 5, h, w]."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, lists: TileLists, height: int, width: int, median: bool) -> Any:
        images, n, _ = table.shape
        planes = table.new_empty(images, kernels.PLANES.value, height, width)
        index = torch.empty(images if median else 0, height, width, dtype=torch.int32, device=table.device)
        final = table.new_empty(images, height, width)
        stops = torch.empty(images, height, width, dtype=torch.int32, device=table.device)
        pairs = lists.owners, lists.starts
        _launch(kernels.blend, lists.num_tiles, table, *pairs, planes, final, stops, height, width)
        if median:
            _launch(kernels.find_median, lists.num_tiles, table, *pairs, planes, index, n, height, width)
        ctx.save_for_backward(table)
        ctx.state = lists, final, stops
        ctx.mark_non_differentiable(index)
        return planes, index

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (table,), (lists, final, stops) = ctx.saved_tensors, ctx.state
        height, width = final.shape[1:]
        grad_planes = grads[0].contiguous()
        # Tiles end before pairs that none of their pixels sees: those keep their zeros.
        gradients = table.new_zeros(len(lists.owners), table.shape[-1])
        grad_table = torch.empty_like(table)
        _launch(
            kernels.blend_backward, lists.num_tiles, table, lists.owners, lists.slots, lists.starts,
            grad_planes, final, stops, gradients, height, width, warps=8,  # with four, registers spill
        )  # fmt: skip
        splats = table.shape[0] * table.shape[1]
        _launch(kernels.add_pairs, splats, gradients, lists.offsets, grad_table, warps=1)
        return grad_table, None, None, None, None


def _launch(kernel: Any, programs: int, *arguments: Any, warps: int = 4) -> None:
    """Runs a kernel on the device of its first argument."""
    with torch.cuda.device_of(arguments[0]):
        # Multiplications and additions may be fused: Triton's default for it depends on the version.
        kernel[(programs,)](*arguments, num_warps=warps, enable_fp_fusion=True)
