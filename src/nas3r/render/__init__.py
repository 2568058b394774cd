"""Differentiable rendering of 3D Gaussians."""
