"""Ablations as functions from a model's config to another."""

from dataclasses import replace

from nas3r.models.config import ModelConfig
from nas3r.models.heads.depth import CanonicalPoints


def without_backdrop(config: ModelConfig) -> ModelConfig:
    """What no context view shows stays black."""
    return replace(config, gaussians=replace(config.gaussians, backdrop=False))


def canonical_points(config: ModelConfig) -> ModelConfig:
    """3D points are regressed directly in the first camera's frame, not lifted from depth.

    Views can then not be compared: their points do not move along rays.
    """
    return replace(config, depth=replace(config.depth, output=CanonicalPoints()), compare_views=False)


def without_mask(config: ModelConfig) -> ModelConfig:
    """Context views see the targets; all views have one size then, and none is compared before the others."""
    return replace(config, masked=False, compare_views=False, target_stride=1)
