"""Photometric and supervised losses."""
