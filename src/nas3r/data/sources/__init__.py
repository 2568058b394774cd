"""Readers of unlabelled clips: folders of images, videos, `.torch` chunks, tar shards."""

from nas3r.data.sources.opening import open_source
from nas3r.data.sources.rejection import Rejection

__all__ = ["Rejection", "open_source"]
