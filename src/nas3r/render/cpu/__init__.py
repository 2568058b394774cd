"""CPU renderer for float32: compiled, threaded kernels with hand-written derivatives.

Projection and compositing are Numba kernels over a table of splats, sixteen floats each. Their readable twins
are `nas3r.render.projection` and `nas3r.render.reference`.
"""

from nas3r.render.cpu.compositing import composite
from nas3r.render.cpu.projection import project

__all__ = ["composite", "project"]
