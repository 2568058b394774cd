"""Metrics, protocols and baselines for novel views, pose and depth; see docs/evaluation.md."""
