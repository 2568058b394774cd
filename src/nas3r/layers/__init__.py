"""What transformers are made of: attention, its blocks, and rotary positions."""
