"""Numba kernels of the CPU renderer. Importing them imports Numba; they are compiled at their first call."""
