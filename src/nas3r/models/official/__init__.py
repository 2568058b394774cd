"""Official checkpoints: their tensors' names, and the variant whose camera trunk mixes all views."""
