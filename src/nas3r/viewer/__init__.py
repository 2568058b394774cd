"""Interactive viewer of a result in the browser."""

from nas3r.viewer.app import Viewer
from nas3r.viewer.splats import Filters, SplatArrays, splat_arrays

__all__ = ["Filters", "SplatArrays", "Viewer", "splat_arrays"]
