"""Fitting one scene to its photos: `refine` moves cameras too, `fit` takes them as exact."""

from nas3r.refine.budget import Budget
from nas3r.refine.bundle import refine
from nas3r.refine.fitting import FitResult, FitSettings, PhotosAside, SureDepth, fit
from nas3r.refine.lift import lift_depth
from nas3r.refine.locate import locate_views
from nas3r.refine.result import Measurement, RefineResult
from nas3r.refine.settings import RefineSettings

__all__ = [
    "Budget",
    "FitResult",
    "FitSettings",
    "Measurement",
    "PhotosAside",
    "RefineResult",
    "RefineSettings",
    "SureDepth",
    "fit",
    "lift_depth",
    "locate_views",
    "refine",
]
