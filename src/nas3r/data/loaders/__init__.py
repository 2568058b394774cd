"""Batches of views for the training loop, addressable by step: one plan, three ways to read it.

`ClipLoader` reads clips without cameras, `PooledLoader` synthetic clips that are kept in memory, and
`LabelledLoader` posed scenes.
"""

from nas3r.data.loaders.clips import ClipLoader
from nas3r.data.loaders.labelled import LabelledLoader
from nas3r.data.loaders.plan import BatchPlan, Request
from nas3r.data.loaders.pool import PooledLoader

__all__ = ["BatchPlan", "ClipLoader", "LabelledLoader", "PooledLoader", "Request"]
