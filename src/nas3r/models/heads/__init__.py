"""What is read out of the decoder's tokens: cameras, depth, Gaussians."""
