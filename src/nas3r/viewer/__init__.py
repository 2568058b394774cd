"""Interactive viewer of a result in the browser, served or as a page of its own."""

from nas3r.viewer.app import Viewer
from nas3r.viewer.page import write_page
from nas3r.viewer.splats import Filters, SplatArrays, splat_arrays

__all__ = ["Filters", "SplatArrays", "Viewer", "splat_arrays", "write_page"]
