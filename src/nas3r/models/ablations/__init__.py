"""Variants of the method that leave out a part of it, to see what it is good for: from a config to another.

Two change how data flow, and so have code of their own: canonical points in `nas3r.models.lifting`, no mask
in `nas3r.models.ablations.unmasked`.
"""

from nas3r.models.ablations.configs import canonical_points, without_backdrop, without_mask

__all__ = ["canonical_points", "without_backdrop", "without_mask"]
