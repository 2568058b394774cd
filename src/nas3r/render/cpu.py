"""Compiled compositor for the CPU: tile-binned, depth-sorted, threaded, with a hand-written backward.

Forward: splats are binned into tiles by the box of the region where they matter, each tile's list is sorted
by depth and blended front to back. Backward: tiles are walked back to front; every (splat, tile) entry has
its own slot for gradients, and a splat's slots are then added in a fixed order. Tiles are independent and
nothing depends on which thread does what, so results are the same bits for any number of threads.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas3r.render.compositing import Composite
from nas3r.render.kernels import binning, blending
from nas3r.render.parallel import parallel_for
from nas3r.render.projection import Splats


def composite(splats: Splats, height: int, width: int, *, median: bool = False) -> Composite:
    """Blends splats front to back.

    Args:
        splats: Of b x v views, float32 on the CPU.
        height: Image height in pixels.
        width: Image width in pixels.
        median: Whether to find the splat of the median depth.
    """
    b, v, n = splats.depths.shape
    columns = [
        splats.means2d,
        splats.conics,
        splats.opacities[..., None],
        splats.colors,
        splats.depths[..., None],
    ]
    packed = torch.cat(columns, -1).reshape(b * v, n, 10)
    image, index = _Blend.apply(packed, splats.radii.reshape(b * v, n, 2), height, width, median)
    image = image.unflatten(0, (b, v))
    index = index.to(torch.int64).unflatten(0, (b, v)) if median else None
    return Composite(image[:, :, :3], image[:, :, 3], image[:, :, 4], index)


class _TileLists(NamedTuple):
    """Depth-sorted entries of every tile: those of tile t are entries[starts[t] : starts[t + 1]]."""

    starts: np.ndarray
    entries: np.ndarray
    owners: np.ndarray
    grid: tuple[int, int]
    offsets: np.ndarray

    @property
    def num_tiles(self) -> int:
        return len(self.starts) - 1


class _Blend(torch.autograd.Function):
    """Packed splats [images, n, 10] to planes (red, green, blue, depth, alpha) [images, 5, h, w]."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, radii: Tensor, height: int, width: int, median: bool) -> Any:
        images = packed.shape[0]
        splats, extents = packed.detach().contiguous().numpy(), radii.contiguous().numpy()
        lists = _bin(splats, extents, height, width)
        splats, extents = splats.reshape(-1, 10), extents.reshape(-1, 2)
        out = np.empty((images, 5, height, width), np.float32)
        last = np.empty((images, height, width), np.int32)
        final = np.empty((images, height, width), np.float32)
        index = np.empty((images if median else 0, height, width), np.int32)
        parallel_for(blending.blend, lists.num_tiles, splats, extents, *lists[:4], out, last, final, index)
        ctx.state = splats, extents, lists, last, final
        result = torch.from_numpy(index)
        ctx.mark_non_differentiable(result)
        return torch.from_numpy(out), result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        splats, extents, lists, last, final = ctx.state
        grad_out = grads[0].contiguous().numpy()
        grad_entries = np.empty((len(lists.entries), 10), np.float32)
        parallel_for(
            blending.blend_backward, lists.num_tiles,
            splats, extents, *lists[:4], last, final, grad_out, grad_entries,
        )  # fmt: skip
        grad = np.empty_like(splats)
        parallel_for(blending.sum_entries, len(grad), lists.offsets, grad_entries, grad)
        return torch.from_numpy(grad).unflatten(0, (last.shape[0], -1)), None, None, None, None


def _bin(splats: np.ndarray, radii: np.ndarray, height: int, width: int) -> _TileLists:
    images, n = splats.shape[:2]
    chunks = -(-n // binning.CHUNK)
    grid = -(-height // binning.TILE_HEIGHT), -(-width // binning.TILE_WIDTH)
    per_splat = np.empty((images, n), np.int32)
    per_tile = np.empty((images, chunks, *grid), np.int32)
    parallel_for(binning.count_entries, images * chunks, splats, radii, height, width, per_splat, per_tile)

    offsets = np.zeros(images * n + 1, np.int64)
    np.cumsum(per_splat, out=offsets[1:])
    # List order: image, tile, chunk. `cursors` is where each (image, chunk, tile) starts to write.
    by_tile = per_tile.reshape(images, chunks, -1).transpose(0, 2, 1)
    ends = np.cumsum(by_tile, dtype=np.int64).reshape(by_tile.shape)
    cursors = np.ascontiguousarray((ends - by_tile).transpose(0, 2, 1)).reshape(per_tile.shape)
    counts = by_tile.sum(-1, dtype=np.int64).ravel()
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])

    total = int(offsets[-1])
    keys, entries, owners = (np.empty(total, dtype) for dtype in (np.uint32, np.int32, np.int32))
    parallel_for(
        binning.scatter_entries, images * chunks,
        splats, radii, height, width, offsets[:-1].reshape(images, n), cursors, keys, entries, owners,
    )  # fmt: skip
    parallel_for(binning.sort_tiles, len(counts), starts, keys, entries)
    return _TileLists(starts, entries, owners, grid, offsets)
