"""Named model configurations."""

import dataclasses

from nas3r.models.config import ModelConfig

# About 1.3 M parameters, for images of 32 to 64 pixels: trains on two CPU cores.
TINY = ModelConfig()

# About 24 M parameters, 128 pixels: half an hour on one GPU gives something to look at.
SMALL = ModelConfig(
    image_size=128,
    patch_size=8,
    encoder_width=384,
    encoder_depth=4,
    encoder_heads=6,
    decoder_width=384,
    decoder_depth=4,
    decoder_heads=6,
    hooks=(1, 3),
    camera_hidden=(768, 384),
    head_width=128,
)

# About 90 M parameters, 256 pixels.
BASE = ModelConfig(
    image_size=256,
    patch_size=16,
    encoder_width=576,
    encoder_depth=6,
    encoder_heads=9,
    decoder_width=576,
    decoder_depth=8,
    decoder_heads=9,
    hooks=(2, 5, 7),
    camera_hidden=(1152, 576),
    head_width=256,
)

_PRESETS = {"tiny": TINY, "small": SMALL, "base": BASE}


def names() -> list[str]:
    """Names that `get` knows."""
    return list(_PRESETS)


def get(name: str) -> ModelConfig:
    """Configuration of a preset.

    Raises:
        ValueError: If there is no such preset.
    """
    if name not in _PRESETS:
        raise ValueError(f"preset {name!r}: expected one of {', '.join(_PRESETS)}")
    return _PRESETS[name]


def with_intrinsics(config: ModelConfig) -> ModelConfig:
    """The `-I` variant of a configuration: intrinsics are given as a token."""
    return dataclasses.replace(config, intrinsics_token=True)
