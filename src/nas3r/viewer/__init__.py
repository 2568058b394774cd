"""Interactive viewer of a result."""
