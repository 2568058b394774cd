"""Photometric bundle adjustment of one scene at test time."""
