"""The blur of structural similarity, compiled for the CPU: separable, symmetric, of windows that lie inside.

`torch` convolves single channels slowly, and a refinement would wait for it longer than for the renderer. The
twin is `structural.blur_by_convolution`.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas3r.render.cpu.kernels.compile import helper, kernel
from nas3r.render.cpu.parallel import parallel_for

TAPS = 11  # that the kernels are written for


def blur(planes: Float[Tensor, "n h w"], window: Float[Tensor, "11"]) -> Float[Tensor, "n h2 w2"]:
    """Blurs every plane along both axes.

    Args:
        planes: float32 on the CPU.
        window: Symmetric.
    """
    return _Blur.apply(planes, window)


class _Blur(torch.autograd.Function):
    """Its transpose is the blur of the gradient with a border of zeros, since the window is symmetric."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, window: Tensor) -> Tensor:
        ctx.window = window.detach().numpy()
        return torch.from_numpy(_blurred(planes.detach().contiguous().numpy(), ctx.window))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        border = TAPS - 1
        padded = torch.nn.functional.pad(grads[0], (border,) * 4)
        return torch.from_numpy(_blurred(padded.contiguous().numpy(), ctx.window)), None


def _blurred(planes: np.ndarray, window: np.ndarray) -> np.ndarray:
    n, h, w = planes.shape
    rows = h - TAPS + 1
    blurred = np.empty((n, rows, w - TAPS + 1), np.float32)
    parallel_for(_blur_rows, n * rows, planes, window, blurred)
    return blurred


@helper
def _sum(a, b, c, d, e, f, window):
    return window[0] * a + window[1] * b + window[2] * c + window[3] * d + window[4] * e + window[5] * f


@kernel
def _blur_rows(start, stop, planes, window, blurred):
    """Fills in rows start to stop of all planes' rows: down the columns first, then along the row."""
    rows, columns = blurred.shape[1:]
    width = planes.shape[2]
    down = np.empty(width, np.float32)
    for index in range(start, stop):
        plane, row = planes[index // rows], index % rows
        for x in range(width):
            down[x] = _sum(
                plane[row, x] + plane[row + 10, x],
                plane[row + 1, x] + plane[row + 9, x],
                plane[row + 2, x] + plane[row + 8, x],
                plane[row + 3, x] + plane[row + 7, x],
                plane[row + 4, x] + plane[row + 6, x],
                plane[row + 5, x],
                window,
            )
        out = blurred[index // rows, row]
        for x in range(columns):
            out[x] = _sum(
                down[x] + down[x + 10],
                down[x + 1] + down[x + 9],
                down[x + 2] + down[x + 8],
                down[x + 3] + down[x + 7],
                down[x + 4] + down[x + 6],
                down[x + 5],
                window,
            )
