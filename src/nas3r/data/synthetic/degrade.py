"""Stress on images: exposure that changes, sensor noise, defocus."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.data.synthetic.config import SyntheticConfig
from nas3r.data.synthetic.draws import Draws
from nas3r.data.synthetic.ops import random_unit

_EXPOSURE_STREAM, _BLUR_STREAM, _NOISE_STREAM = 20, 21, 22


def _strength(draws: Draws, config: SyntheticConfig) -> Float[Tensor, "b"]:
    return draws.uniform() if config.randomise_stress else torch.ones(len(draws))


def exposure_gain(
    seed: Int[Tensor, "b"], frames: Int[Tensor, "b v"], num_frames: int, config: SyntheticConfig
) -> Float[Tensor, "b v"]:
    """Gain of each frame: a slow wave whose peaks are `config.exposure` stops apart."""
    draws = Draws(seed.cpu(), _EXPOSURE_STREAM)
    stops = 0.5 * config.exposure * _strength(draws, config)[:, None]
    phase, turns = draws.uniform(1), draws.uniform(1, low=0.5, high=1.5)
    at = turns * frames.cpu() / max(num_frames - 1, 1) + phase
    return (2.0 ** (stops * (2 * math.pi * at).sin())).to(frames.device)


def degrade(
    images: Float[Tensor, "b v 3 h w"],
    seed: Int[Tensor, "b"],
    frames: Int[Tensor, "b v"],
    config: SyntheticConfig,
) -> Float[Tensor, "b v 3 h w"]:
    """Images with the blur and noise asked for, the same for the same seed and frame."""
    if config.blur > 0:
        sigma = config.blur * _strength(Draws(seed.cpu(), _BLUR_STREAM), config)
        images = torch.stack([_blurred(x, float(s) * x.shape[-1]) for x, s in zip(images, sigma)])
    if config.noise > 0:
        sigma = config.noise * _strength(Draws(seed.cpu(), _NOISE_STREAM), config).to(images)
        images = (images + sigma[:, None, None, None, None] * _gaussian(images, seed, frames)).clamp(0, 1)
    return images


def _blurred(images: Float[Tensor, "v 3 h w"], sigma: float) -> Float[Tensor, "v 3 h w"]:
    """Gaussian blur with a standard deviation in pixels."""
    reach = min(math.ceil(3 * sigma), images.shape[-1] - 1, images.shape[-2] - 1)
    if reach < 1 or sigma < 0.05:
        return images
    x = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (x / sigma) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(padded, weights, groups=3), weights.mT, groups=3)


def _gaussian(images: Tensor, seed: Tensor, frames: Tensor) -> Float[Tensor, "b v 3 h w"]:
    """Standard normal noise from a hash of (seed, frame, pixel): the same on every device."""
    n = images[0, 0].numel()
    pixel = torch.arange(n, device=images.device)
    key = (seed[:, None] % 1048573 + 7919 * frames).to(images.device)[..., None]
    radius = (-2 * (1 - random_unit(pixel, 0 * pixel, key)).clamp_min(1e-7).log()).sqrt()
    angle = 2 * math.pi * random_unit(pixel, 1 + 0 * pixel, key)
    return (radius * angle.cos()).reshape(images.shape)
