"""Small versions of every preset with random weights, and inputs for them."""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas3r.models import NAS3R, ModelConfig, presets

FAMILIES = ["tiny", "tiny-I", "tiny-m", "tiny-m-I", "large", "large-I"]
OFFICIAL = ["nas3r", "nas3r-I", "nas3r-m", "nas3r-m-I"]


def reduced(name: str, **changes: object) -> ModelConfig:
    """A preset with few and narrow layers; everything else as it is."""
    config = presets.get(name)
    small: dict[str, object] = {
        "encoder_width": 24,
        "encoder_depth": 1,
        "encoder_heads": 2,
        "decoder_width": 32,
        "decoder_depth": 4,
        "decoder_heads": 2,
        "hooks": (*range(len(config.hooks) - 1), 4 if config.family == "mast3r" else 3),
        "head_width": 16,
        "camera_trunk_depth": 1,
        "camera_trunk_heads": 2,
        "camera_hidden": (16,),
        "dpt_channels": (8, 8, 8, 8),
        "depth_hidden": (16, 8),
        "gaussian_hidden": (16, 16),
    }
    if config.encoder_position == "learned":
        small["encoder_width"] = small["decoder_width"]
        small["encoder_table_size"] = 3
    return replace(config, **(small | changes))


def random_model(config: ModelConfig, seed: int = 0) -> NAS3R:
    """A model whose every weight is random, so that nothing is hidden behind a zero initialisation."""
    torch.manual_seed(seed)
    model = NAS3R(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5 / math.sqrt(max(1, math.prod(parameter.shape[1:]))))
            elif name.endswith("weight") or name.endswith("gamma"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def random_views(config: ModelConfig, views: int, batch: int = 2, rows: int = 2, columns: int = 3) -> Tensor:
    p = config.patch_size
    return torch.rand(batch, views, 3, rows * p, columns * p)


def overlapping_views(config: ModelConfig, views: int, batch: int = 2) -> Tensor:
    """Windows of one smooth image, so that matching them is a well-posed problem."""
    p, reach = config.patch_size, config.patch_size // 2
    noise = torch.rand(batch, 3, 2 * p + reach + 2, 3 * p + reach + 2)
    image = F.avg_pool2d(noise, 3, 1)
    starts = torch.randint(reach + 1, (views, 2)).tolist()
    return torch.stack([image[..., y : y + 2 * p, x : x + 3 * p] for y, x in starts], 1)


def random_intrinsics(config: ModelConfig, views: int, batch: int = 2) -> Tensor | None:
    if not config.intrinsics_token:
        return None
    k = torch.eye(3).repeat(batch, views, 1, 1)
    k[..., :2, 2] = 0.5
    k[..., 0, 0] = 0.8 + 0.4 * torch.rand(batch, views)
    k[..., 1, 1] = k[..., 0, 0]
    return k


def relative_error(got: Tensor | np.ndarray, expected: Tensor | np.ndarray) -> float:
    """Relative L2 distance."""
    a, b = (torch.as_tensor(x).detach().double() for x in (got, expected))
    assert a.shape == b.shape, (a.shape, b.shape)
    return float((a - b).norm() / b.norm())
