"""gsplat's CUDA compositor on our splats.

gsplat follows the rules of `compositing`, pixel centres included, but for one: its alpha saturates at 0.999
instead of 0.99, which is seen only in the middle of splats more opaque than 0.99.
"""

from importlib import import_module

import torch
from jaxtyping import Int
from torch import Tensor

from nas3r.render.compositing import Composite
from nas3r.render.projection import MIN_ALPHA, Splats

TILE_SIZE = 16
MAX_RADIUS = 1 << 24  # pixels; radii are integers in gsplat and must not overflow


def load_extension() -> None:
    """Loads gsplat's CUDA code, and compiles it where that was never done, which takes minutes.

    Raises:
        RuntimeError: If that fails.
    """
    failure = "gsplat is installed, but its CUDA extension cannot be built"
    try:
        extension = import_module("gsplat.cuda._backend")._C
    except Exception as error:  # compilers, linkers and loaders fail in many ways
        raise RuntimeError(f"{failure}: {str(error).strip().partition(chr(10))[0]}") from error
    if extension is None:
        raise RuntimeError(f"{failure}: it needs the CUDA toolkit (nvcc)")


def composite(splats: Splats, height: int, width: int, *, median: bool = False) -> Composite:
    """Blends splats front to back.

    Args:
        splats: Of b x v views, float32 on a CUDA device.
        height: Image height in pixels.
        width: Image width in pixels.
        median: Whether to find the splat of the median depth.
    """
    from gsplat.cuda._wrapper import isect_offset_encode, isect_tiles, rasterize_to_pixels

    b, v, n = splats.depths.shape
    if b * v * n == 0:
        return _nothing(splats, height, width, median)
    means2d, conics = splats.means2d.flatten(0, 1), splats.conics.flatten(0, 1)
    opacities, depths = splats.opacities.flatten(0, 1), splats.depths.flatten(0, 1)
    # gsplat blends any number of channels with one set of weights: depth travels as the fourth.
    channels = torch.cat([splats.colors.flatten(0, 1), depths[..., None]], -1)

    tiles = -(-height // TILE_SIZE), -(-width // TILE_SIZE)
    radii = splats.radii.flatten(0, 1).ceil().clamp_max(MAX_RADIUS).to(torch.int32)
    _, keys, order = isect_tiles(means2d.detach(), radii, depths.detach(), TILE_SIZE, tiles[1], tiles[0])
    offsets = isect_offset_encode(keys, b * v, tiles[1], tiles[0])
    blended, alpha = rasterize_to_pixels(
        means2d, conics, channels, opacities, width, height, TILE_SIZE, offsets, order
    )
    index = None
    if median:
        index = _median_index(means2d, conics, opacities, height, width, offsets, order).unflatten(0, (b, v))
    planes = blended.movedim(-1, 1).unflatten(0, (b, v))
    return Composite(planes[:, :, :3], planes[:, :, 3], alpha[..., 0].unflatten(0, (b, v)), index)


def _nothing(splats: Splats, height: int, width: int, median: bool) -> Composite:
    """Empty views, still connected to the (empty) inputs so that a backward pass works."""
    b, v, _ = splats.depths.shape
    planes = splats.colors.sum().expand(b, v, 5, height, width)
    index = torch.full((b, v, height, width), -1, device=planes.device) if median else None
    return Composite(planes[:, :, :3], planes[:, :, 3], planes[:, :, 4], index)


@torch.no_grad()
def _median_index(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    height: int,
    width: int,
    offsets: Tensor,
    order: Tensor,
) -> Int[Tensor, "i h w"]:
    """Which splat brings each pixel to half of its alpha, from gsplat's list of contributing pairs."""
    from gsplat.cuda._wrapper import rasterize_to_indices_in_range

    everything = 1 << 30  # batches of splats to go through
    splat, pixel, image = rasterize_to_indices_in_range(
        0, everything, means2d.new_ones(len(means2d), height, width),
        means2d, conics, opacities, width, height, TILE_SIZE, offsets, order,
    )  # fmt: skip
    x, y = pixel % width + 0.5, pixel // width + 0.5
    dx, dy = (torch.stack([x, y], -1) - means2d[image, splat]).unbind(-1)
    a, b, c = conics[image, splat].unbind(-1)
    falloff = torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    alpha = (opacities[image, splat] * falloff).clamp(MIN_ALPHA, 0.999)
    pixels = height * width
    index = half_alpha_index(alpha, splat, image * pixels + pixel, len(means2d) * pixels)
    return index.reshape(-1, height, width)


def half_alpha_index(alpha: Tensor, splat: Tensor, pixel: Tensor, pixels: int) -> Int[Tensor, "p"]:
    """The splat where half of a pixel's alpha is reached, from pairs listed by pixel and front to back.

    Args:
        alpha: Of each pair [m].
        splat: Of each pair [m].
        pixel: Of each pair [m], ascending.
        pixels: Number of pixels; those without a pair get -1.
    """
    # Transmittance after each pair, as a cumulative sum of logarithms that restarts at every pixel.
    log_sum = torch.log1p(-alpha.double()).cumsum(0)
    counts = torch.bincount(pixel, minlength=pixels)
    ends = counts.cumsum(0)
    padded = torch.cat([log_sum.new_zeros(1), log_sum])
    start, total = padded[ends - counts], padded[ends]
    reached = 1 - (log_sum - start[pixel]).exp() >= 0.5 * (1 - (total - start)[pixel].exp())
    positions = torch.arange(len(splat), device=splat.device)
    first = torch.full((pixels,), len(splat), device=splat.device)
    first = first.scatter_reduce(0, pixel[reached], positions[reached], "amin")
    index = torch.cat([splat, splat.new_full((1,), -1)])
    return index[first]
