"""Dense compositor in plain torch: every pixel against every splat. The oracle of all tests."""

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.render.compositing import MAX_ALPHA, MIN_TRANSMITTANCE, Composite
from nas3r.render.projection import MIN_ALPHA, Splats


def composite(splats: Splats, height: int, width: int, *, median: bool = False) -> Composite:
    """Blends splats front to back; memory grows as pixels times splats.

    Args:
        splats: Of b x v views.
        height: Image height in pixels.
        width: Image width in pixels.
        median: Whether to find the splat of the median depth.
    """
    order = splats.depths.detach().sort(stable=True).indices
    alpha = _alphas(splats, height, width).gather(-1, order[:, :, None].expand(-1, -1, height * width, -1))

    after = torch.cumprod(1 - alpha, -1)
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], -1)
    # `after` only falls, so the first splat that would take it below the limit ends the pixel.
    weights = alpha * before * (after >= MIN_TRANSMITTANCE)

    values = torch.cat([splats.colors, splats.depths[..., None]], -1)
    values = values.gather(2, order[..., None].expand(-1, -1, -1, 4))
    blended = (weights @ values).mT.unflatten(-1, (height, width))
    total = weights.sum(-1).unflatten(-1, (height, width))
    index = _median_index(weights.detach(), order).unflatten(-1, (height, width)) if median else None
    return Composite(blended[:, :, :3], blended[:, :, 3], total, index)


def _alphas(splats: Splats, height: int, width: int) -> Float[Tensor, "b v p n"]:
    """Alpha of every splat at every pixel, zero where the compositing rules skip it."""
    like = splats.means2d
    x = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    y = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 1, 2)

    visible = splats.visible
    means2d = torch.where(visible[..., None], splats.means2d, torch.zeros_like(splats.means2d))
    dx, dy = (pixels - means2d[:, :, None]).unbind(-1)
    a, b, c = splats.conics[:, :, None].unbind(-1)
    power = (-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy).clamp_max(0)
    alpha = (splats.opacities[:, :, None] * power.exp()).clamp_max(MAX_ALPHA)
    return torch.where(visible[:, :, None] & (alpha >= MIN_ALPHA), alpha, torch.zeros_like(alpha))


def _median_index(weights: Tensor, order: Tensor) -> Tensor:
    """Index of the splat at which half of the pixel's alpha is reached, -1 where there is none [b, v, p]."""
    if weights.shape[-1] == 0:
        return torch.full(weights.shape[:-1], -1, dtype=torch.int64, device=weights.device)
    cumulative = weights.cumsum(-1)
    rank = (cumulative >= 0.5 * cumulative[..., -1:]).to(torch.uint8).argmax(-1)
    index = order[:, :, None].expand(-1, -1, rank.shape[-1], -1).gather(-1, rank[..., None])[..., 0]
    return torch.where(cumulative[..., -1] > 0, index, torch.full_like(index, -1))
