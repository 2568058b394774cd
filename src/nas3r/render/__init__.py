"""Differentiable rendering of 3D Gaussians: one projection, four compositors, gradients to everything."""

import sys
from types import ModuleType
from typing import Any

from nas3r.render.rendering import Rendering, render

__all__ = ["Rendering", "render"]


class _CallableModule(ModuleType):
    """`nas3r.render` is this package and its function: importing the one must not hide the other."""

    def __call__(self, *args: Any, **options: Any) -> Rendering:
        return render(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
