"""Which splats matter to which tile, in depth order; in plain torch, for any device."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from nas3r.render.projection import Splats

# 128 pixels, half of the usual 16 x 16: the images here are small, and a tile is one program.
TILE_HEIGHT = 8
TILE_WIDTH = 16


class TileLists(NamedTuple):
    """Depth-sorted lists of pairs, one pair for every splat and tile that meet; 12 bytes for each.

    Attributes:
        starts: The pairs of tile t are those from starts[t] to starts[t + 1] [tiles + 1]; tiles are counted
            through all images, row by row.
        owners: Splat of each pair, in list order, counted through all images [pairs], int32.
        slots: Number of each pair, in list order [pairs].
        offsets: The pairs of splat i have the numbers offsets[i] to offsets[i + 1] [splats + 1].
    """

    starts: Int[Tensor, "tiles_and_1"]
    owners: Int[Tensor, "pairs"]
    slots: Int[Tensor, "pairs"]
    offsets: Int[Tensor, "splats_and_1"]

    @property
    def num_tiles(self) -> int:
        """Tiles of all images."""
        return len(self.starts) - 1


@torch.no_grad()
def list_splats(splats: Splats, height: int, width: int) -> TileLists:
    """Lists the splats of every tile, front to back; equal depths in the order of the splats.

    Args:
        splats: Of b x v views.
        height: Image height in pixels.
        width: Image width in pixels.
    """
    b, v, n = splats.depths.shape
    tiles_y, tiles_x = -(-height // TILE_HEIGHT), -(-width // TILE_WIDTH)
    x, y = splats.means2d.reshape(-1, 2).unbind(-1)
    radius_x, radius_y = splats.radii.reshape(-1, 2).unbind(-1)
    left, columns = _tiles_across(x, radius_x, width, TILE_WIDTH)
    top, rows = _tiles_across(y, radius_y, height, TILE_HEIGHT)
    counts = torch.where(radius_x > 0, columns * rows, 0)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))

    owners = torch.repeat_interleave(counts)
    place = torch.arange(len(owners), device=owners.device) - offsets[owners]
    tile_y = top[owners] + place // columns[owners]
    tile_x = left[owners] + place % columns[owners]
    tile = (owners // max(n, 1) * tiles_y + tile_y) * tiles_x + tile_x
    # The bits of a positive float sort like the float. Pairs are numbered in the order of the splats, which a
    # stable sort keeps where tile and depth agree.
    depth_bits = splats.depths.reshape(-1).contiguous().view(torch.int32)
    keys, slots = torch.sort(tile << 32 | depth_bits[owners], stable=True)
    tiles = torch.arange(b * v * tiles_y * tiles_x + 1, device=keys.device)
    return TileLists(torch.searchsorted(keys, tiles << 32), owners[slots].int(), slots, offsets)


def _tiles_across(center: Tensor, radius: Tensor, pixels: int, tile: int) -> tuple[Tensor, Tensor]:
    """First tile that holds a pixel centre of center - radius to center + radius, and how many do."""
    # May include a pixel whose centre is up to 1e-4 outside: alpha decides.
    first = (center - radius + 0.4999).clamp(0, pixels).long()
    last = (center + radius + 0.5).clamp(0, pixels).long() - 1
    begin = first // tile
    return begin, torch.where(first <= last, last // tile + 1 - begin, 0)
