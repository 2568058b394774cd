"""From images to cameras, depth and Gaussians on disk."""
