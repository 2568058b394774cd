"""The `nas3r` command: one module per verb."""
