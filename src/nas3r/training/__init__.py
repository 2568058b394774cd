"""Self-supervised training on images without labels."""
