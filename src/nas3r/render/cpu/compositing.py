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
from nas3r.render.cpu.kernels import binning, blending
from nas3r.render.cpu.kernels.columns import COLUMNS
from nas3r.render.cpu.parallel import parallel_for
from nas3r.render.cpu.table import SplatTable
from nas3r.render.projection import Splats


def composite(splats: Splats | SplatTable, height: int, width: int, *, median: bool = False) -> Composite:
    """Blends splats front to back.

    Args:
        splats: Of b x v views, float32 on the CPU.
        height: Image height in pixels.
        width: Image width in pixels.
        median: Whether to find the splat of the median depth.
    """
    table = splats if isinstance(splats, SplatTable) else SplatTable.from_splats(splats)
    shape = table.rows.shape[:2]
    planes, index = _Blend.apply(table.rows.flatten(0, 1), height, width, median)
    planes = planes.unflatten(0, shape)
    index = index.to(torch.int64).unflatten(0, shape) if median else None
    return Composite(planes[:, :, :3], planes[:, :, 3], planes[:, :, 4], index)


class _Blend(torch.autograd.Function):
    """Table of splats [images, n, COLUMNS] to planes (red, green, blue, depth, alpha) [images, 5, h, w]."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, height: int, width: int, median: bool) -> Any:
        splats = table.detach().contiguous().numpy()
        lists = _bin(splats, height, width)
        images = len(splats)
        planes = np.empty((images, blending.PLANES, height, width), np.float32)
        final = np.empty((images, height, width), np.float32)
        stops = np.empty((images, height, width), np.float32)
        index = np.empty((images if median else 0, height, width), np.int32)
        splats = splats.reshape(-1, COLUMNS)
        parallel_for(
            blending.blend, lists.num_tiles,
            splats, lists.starts, lists.owners, lists.grid, median, planes, final, stops, index,
        )  # fmt: skip
        ctx.state, ctx.shape = (splats, lists, final, stops), table.shape
        indices = torch.from_numpy(index)
        ctx.mark_non_differentiable(indices)
        return torch.from_numpy(planes), indices

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        splats, lists, final, stops = ctx.state
        grad_planes = grads[0].contiguous().numpy()
        moments = np.empty((len(lists.entries), blending.MOMENTS), np.float32)
        parallel_for(
            blending.blend_backward, lists.num_tiles,
            splats, lists.starts, lists.owners, lists.entries, lists.grid, grad_planes, final, stops, moments,
        )  # fmt: skip
        grad = np.empty_like(splats)
        parallel_for(blending.gather_gradients, len(grad), splats, lists.offsets, moments, grad)
        return torch.from_numpy(grad).reshape(ctx.shape), None, None, None


class _TileLists(NamedTuple):
    """Depth-sorted entries, one for every (splat, tile) that meet.

    Attributes:
        starts: The entries of tile t are those from starts[t] to starts[t + 1] [images * tiles + 1].
        owners: Row of the table of each entry, in list order.
        entries: Number of each entry, in list order.
        offsets: The entries of splat i have the numbers offsets[i]..offsets[i + 1].
        grid: Tiles of an image, vertically and horizontally.
    """

    starts: np.ndarray
    owners: np.ndarray
    entries: np.ndarray
    offsets: np.ndarray
    grid: tuple[int, int]

    @property
    def num_tiles(self) -> int:
        return len(self.starts) - 1


def _bin(table: np.ndarray, height: int, width: int) -> _TileLists:
    """Lists the splats of every tile, sorted by depth."""
    images, n = table.shape[:2]
    chunks = -(-n // binning.CHUNK)
    grid = -(-height // binning.TILE_HEIGHT), -(-width // binning.TILE_WIDTH)
    per_splat = np.empty((images, n), np.int32)
    per_tile = np.empty((images, chunks, *grid), np.int32)
    parallel_for(binning.count_entries, images * chunks, table, height, width, per_splat, per_tile)

    offsets = np.zeros(images * n + 1, np.int64)
    np.cumsum(per_splat, out=offsets[1:])
    # Lists are laid out by image, tile and chunk; every chunk writes at its own place.
    by_tile = per_tile.reshape(images, chunks, grid[0] * grid[1]).transpose(0, 2, 1)
    ends = np.cumsum(by_tile, dtype=np.int64).reshape(by_tile.shape)
    cursors = np.ascontiguousarray((ends - by_tile).transpose(0, 2, 1)).reshape(per_tile.shape)
    starts = np.zeros(images * grid[0] * grid[1] + 1, np.int64)
    np.cumsum(by_tile.sum(-1, dtype=np.int64), out=starts[1:])

    keys = np.empty(offsets[-1], np.uint32)
    entries, splat_of_entry, owners = (np.empty(len(keys), np.int32) for _ in range(3))
    parallel_for(
        binning.scatter_entries, images * chunks,
        table, height, width, offsets, cursors, keys, entries, splat_of_entry,
    )  # fmt: skip
    parallel_for(binning.sort_tiles, len(starts) - 1, starts, keys, entries, splat_of_entry, owners)
    return _TileLists(starts, owners, entries, offsets, grid)
