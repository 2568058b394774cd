"""How kernels are compiled."""

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function without the GIL, cached on disk where some cache folder is writable."""
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "nsz", "arcp"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable folder beside the code, in the user's cache nor in NUMBA_CACHE_DIR
        return numba.njit(**options)(function)
