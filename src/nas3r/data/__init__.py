"""Images for training (without any camera) and posed images for evaluation."""
