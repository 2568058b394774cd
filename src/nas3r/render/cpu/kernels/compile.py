"""How kernels are compiled.

Numba caches a kernel until the file that holds it changes. After editing something that kernels use from
other files (helpers, constants), remove the cached ones: `rm src/nas3r/render/cpu/kernels/__pycache__/*.nb?`.
"""

from collections.abc import Callable
from typing import Any

import numba

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function without the GIL, cached on disk where some cache folder is writable."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no writable folder beside the code, in the user's cache nor in NUMBA_CACHE_DIR
        return numba.njit(**_OPTIONS)(function)


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function that only kernels call, into each of them."""
    return numba.njit(forceinline=True, **_OPTIONS)(function)
