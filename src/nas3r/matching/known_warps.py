"""Learning to match from single images: warped in known ways, they say where everything went.

Warps stand for what a moving camera does: a homography, bent a little, and a second layer with its own
motion, which covers and uncovers the first. Both images get their own exposure, colours and noise.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nas3r.matching.grid import bilinear

# Of the learnt distribution over places. Matching uses twice as much: what is learnt is how sure one can be
# of a place in any image, and most queries are surer than their look alone tells.
_SHARPNESS = 40.0
_QUERIES = 16  # along the longer axis, at most; at most every second cell is one
_BACKWARD = 0.5  # weight of finding the query from its match
_TURN, _ZOOM, _TILT, _SHIFT = math.radians(60), 0.9, 0.5, 0.45  # largest; shift of half an image
_LAYER_CHANCE, _LAYER_LEVEL = 0.6, 0.6  # of there being one; standard deviations of noise where it is
_BEND, _KNOTS = 0.12, 4
_GAIN, _TINT, _NOISE = 0.25, 0.15, 0.02


def matching_loss(features: nn.Module, images: Float[Tensor, "n 3 h w"], cell: int) -> Float[Tensor, ""]:
    """Negative log-likelihood of the true places of queries, and of the queries given their places.

    Args:
        features: Maps images, averaged over cells, to features.
        images: In [0, 1].
        cell: Side of a cell in pixels.
    """
    n, _, height, width = images.shape
    stride = max(2, max(height, width) // cell // _QUERIES)
    with torch.no_grad():
        source, inside = random_warps(n, height, width, images.device)
        warped = F.grid_sample(images, source, align_corners=False, padding_mode="reflection")
        pair = F.avg_pool2d(torch.cat([recoloured(warped), recoloured(images)]), cell)
        places = F.avg_pool2d(source.permute(0, 3, 1, 2), cell)[..., ::stride, ::stride]
        seen = F.avg_pool2d(inside.float()[:, None], cell)[:, 0, ::stride, ::stride] > 0.99
    of_warped, of_source = features(pair).chunk(2)
    rows, columns = of_source.shape[-2:]
    logits = _SHARPNESS * of_warped[..., ::stride, ::stride].flatten(2).mT @ of_source.flatten(2)
    score = logits.log_softmax(-1) + _BACKWARD * logits.log_softmax(-2)
    cells = (places.flatten(2).mT + 1) / 2 * of_source.new_tensor([columns, rows]) - 0.5
    index, weight = bilinear(cells, columns, rows)
    likelihood = (score.gather(-1, index) * weight).sum(-1) * seen.flatten(1)
    return -(likelihood.sum(-1) / seen.flatten(1).sum(-1).clamp_min(1)).mean()


def random_warps(
    n: int, height: int, width: int, device: torch.device
) -> tuple[Float[Tensor, "n h w 2"], Bool[Tensor, "n h w"]]:
    """Where the pixels of warped images come from, x and y from -1 to 1, and whether that is inside."""
    y = (torch.arange(height, device=device) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=device) + 0.5) / width * 2 - 1
    grid = torch.cartesian_prod(y, x).flip(-1).unflatten(0, (height, width))

    def signed(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, device=device) - 1

    def noise(channels: int) -> Float[Tensor, "n h w c"]:
        knots = torch.randn(n, channels, _KNOTS, _KNOTS, device=device)
        return F.interpolate(knots, (height, width), mode="bicubic").permute(0, 2, 3, 1)

    def homography(strength: float) -> Float[Tensor, "n h w 2"]:
        turn, zoom = _TURN * signed(n) * signed(n), (_ZOOM * strength * signed(n) * signed(n)).exp()
        stretch, shear = (0.25 * signed(n)).exp(), 0.25 * signed(n)
        tilt = _TILT * strength * signed(n, 2) * signed(n, 2)
        rows = [
            torch.stack([turn.cos() * zoom * stretch, shear - turn.sin() * zoom, _SHIFT * signed(n)], -1),
            torch.stack([turn.sin() * zoom, turn.cos() * zoom / stretch, _SHIFT * signed(n)], -1),
            F.pad(tilt, (0, 1), value=1.0),
        ]
        moved = F.pad(grid, (0, 1), value=1.0).flatten(0, 1) @ torch.stack(rows, 1).mT
        return (moved[..., :2] / moved[..., 2:].clamp_min(0.2)).unflatten(1, (height, width))

    source = homography(1.0) + _BEND * torch.rand(n, 1, 1, 1, device=device) * noise(2)
    layer = (noise(1) > _LAYER_LEVEL) & (torch.rand(n, 1, 1, 1, device=device) < _LAYER_CHANCE)
    source = torch.where(layer, source + homography(0.5) - grid, source)
    return source, (source.abs() < 1).all(-1)


def recoloured(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Images with exposure, colours and noise of their own."""
    n, device = len(images), images.device
    gain = _GAIN * (2 * torch.rand(n, 1, 1, 1, device=device) - 1)
    tint = _TINT * (2 * torch.rand(n, 3, 1, 1, device=device) - 1)
    noise = _NOISE * torch.rand(n, 1, 1, 1, device=device) * torch.randn_like(images)
    return (images * (gain + tint).exp() + noise).clamp(0, 1)
