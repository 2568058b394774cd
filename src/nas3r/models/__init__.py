"""The NAS3R network family."""
