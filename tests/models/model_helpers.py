"""Small versions of every preset with random weights, and inputs for them."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas3r.models import NAS3R, ModelConfig, build, presets
from nas3r.models.encoder import LearnedPositions
from nas3r.models.heads.camera import TrunkCameraConfig
from nas3r.models.heads.dpt import DptConfig
from nas3r.models.poses import Regressed

FAMILIES = ["tiny", "tiny-I", "tiny-m", "tiny-m-I", "large", "large-I"]
OFFICIAL = ["nas3r", "nas3r-I", "nas3r-m", "nas3r-m-I"]


def vary(part: Any, **changes: Any) -> Any:
    """A config with other values; a name like `encoder__width` reaches into a part."""
    own = {name: value for name, value in changes.items() if "__" not in name}
    for name in dict.fromkeys(name.split("__")[0] for name in changes if "__" in name):
        inner = {k.split("__", 1)[1]: v for k, v in changes.items() if k.startswith(f"{name}__")}
        own[name] = vary(getattr(part, name), **inner)
    return replace(part, **own)


def regressed(config: ModelConfig, **changes: Any) -> ModelConfig:
    """The same network with poses that are regressed."""
    return vary(config, poses=Regressed(), compare_views=False, **changes)


def reduced(name: str, **changes: Any) -> ModelConfig:
    """A preset with few and narrow layers; everything else as it is."""
    return vary(reduced_config(presets.get(name)), **changes)


def reduced_config(config: ModelConfig) -> ModelConfig:
    """The same of any config."""
    hooks = (*range(len(config.decoder.hooks) - 1), 4 if config.family == "mast3r" else 3)
    small: dict[str, Any] = {
        "encoder__width": 24,
        "encoder__depth": 1,
        "encoder__heads": 2,
        "decoder": replace(config.decoder, width=32, depth=4, heads=2, hooks=hooks),
        "dense_heads__width": 16,
    }
    if isinstance(config.camera.head, TrunkCameraConfig):
        small["camera__head"] = TrunkCameraConfig(depth=1, heads=2)
    else:
        small["camera__head__hidden"] = (16,)
    if isinstance(config.dense_heads, DptConfig):
        small |= {
            "dense_heads__channels": (8, 8, 8, 8),
            "dense_heads__depth_hidden": (16, 8),
            "dense_heads__gaussian_hidden": (16, 16),
        }
    if isinstance(config.encoder.position, LearnedPositions):
        small["encoder__width"] = 32
        small["encoder__position__side"] = 3
    return vary(config, **small)


def random_model(config: ModelConfig, seed: int = 0) -> NAS3R:
    """A model whose every weight is random, so that nothing is hidden behind a zero initialisation."""
    torch.manual_seed(seed)
    model = build(config)
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
    if not config.needs_intrinsics:
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
