"""Differentiable rendering of 3D Gaussians: one projection, three compositors, gradients to everything."""

from nas3r.render.rendering import Rendering, render

__all__ = ["Rendering", "render"]
