"""Test-time photometric bundle adjustment of one scene."""

from nas3r.refine.bundle import refine
from nas3r.refine.lift import lift_depth
from nas3r.refine.locate import locate_views
from nas3r.refine.result import Measurement, RefineResult
from nas3r.refine.settings import RefineSettings

__all__ = ["Measurement", "RefineResult", "RefineSettings", "lift_depth", "locate_views", "refine"]
