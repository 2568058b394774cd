"""Compositors for CUDA: gsplat's, and ours in Triton. Neither is imported before it is asked for."""

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Literal

from nas3r.render.compositing import Composite

logger = logging.getLogger(__name__)

_GSPLAT = 'gsplat: pip install "nas3r[cuda]"'
_TRITON = "Triton, which CUDA builds of torch bring on Linux"
_WAY_OUT = '(or use backend="reference")'


def compositor(backend: Literal["cuda", "gsplat", "triton"]) -> Callable[..., Composite]:
    """The compositor of a backend.

    Args:
        backend: "cuda" is gsplat's compositor if it is installed and its CUDA code can be built, for it has
            been run on many GPUs; ours otherwise.

    Raises:
        ModuleNotFoundError: If what the backend needs is not installed.
        RuntimeError: If gsplat is installed, needed, and its CUDA code cannot be built.
    """
    if (_best() if backend == "cuda" else backend) == "gsplat":
        if not find_spec("gsplat"):
            raise ModuleNotFoundError(f'backend "gsplat" needs {_GSPLAT} {_WAY_OUT}')
        from nas3r.render.cuda import gsplat_compositor

        gsplat_compositor.load_extension()
        return gsplat_compositor.composite
    if not find_spec("triton"):
        raise ModuleNotFoundError(f'backend "triton" needs {_TRITON} {_WAY_OUT}')
    from nas3r.render.cuda import triton_compositor

    return triton_compositor.composite


@cache
def _best() -> Literal["gsplat", "triton"]:
    """What "cuda" stands for here; found out, and logged if it disappoints, once."""
    if find_spec("gsplat"):
        from nas3r.render.cuda import gsplat_compositor

        try:
            gsplat_compositor.load_extension()
        except RuntimeError as error:
            if not find_spec("triton"):
                raise
            logger.warning("%s; rendering with Triton instead", error)
            return "triton"
        return "gsplat"
    if find_spec("triton"):
        return "triton"
    raise ModuleNotFoundError(f"rendering on CUDA needs {_TRITON}, or {_GSPLAT} {_WAY_OUT}")
