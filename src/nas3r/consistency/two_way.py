"""Whether views agree on each other's depth: there and back, a pixel returns to where it was."""

import numpy as np

from nas3r.render.cpu.kernels.compile import kernel

_PIXELS = 1.0  # standard deviation of the way back
_DEPTH = 0.01  # ditto, of the relative difference in depth
_NEEDED = 2.0  # views that agree make a pixel certain; with fewer sources all of them
_HALF = 0.5  # cost of windows that count half
_STEEP = 0.1


@kernel
def agreement(start, stop, inverse, cost, forth, back, sources, result):
    """Fills in confidence in [0, 1] for rows start to stop of a view.

    Args:
        start: First row.
        stop: Past the last one.
        inverse: Inverse depth of all views [v, h, w].
        cost: Of the view's windows [h, w].
        forth: From the view to its sources [s, 12], see `plane_cost`.
        back: From the sources to the view.
        sources: The other views [s]; its own index is last [s + 1].
        result: Is filled [h, w].
    """
    view = sources[-1]
    height, width = inverse.shape[1:]
    count = len(sources) - 1
    for row in range(start, stop):
        for column in range(width):
            x, y, w = column + 0.5, row + 0.5, inverse[view, row, column]
            total = 0.0
            for s in range(count):
                a, b = forth[s], back[s]
                z = a[6] * x + a[7] * y + a[8] + w * a[11]
                if z <= 0:
                    continue
                u = (a[0] * x + a[1] * y + a[2] + w * a[9]) / z
                v = (a[3] * x + a[4] * y + a[5] + w * a[10]) / z
                if not (0.5 <= u < width - 0.5 and 0.5 <= v < height - 0.5):
                    continue
                c, r = int(u - 0.5), int(v - 0.5)
                fu, fv = u - 0.5 - c, v - 0.5 - r
                maps = inverse[sources[s]]
                there = (1 - fv) * ((1 - fu) * maps[r, c] + fu * maps[r, c + 1]) + fv * (
                    (1 - fu) * maps[r + 1, c] + fu * maps[r + 1, c + 1]
                )
                expected = w / z  # inverse depth of the point in the other view
                apart = (there / expected - 1) / _DEPTH
                zb = b[6] * u + b[7] * v + b[8] + there * b[11]
                if zb <= 0:
                    continue
                ex = (b[0] * u + b[1] * v + b[2] + there * b[9]) / zb - x
                ey = (b[3] * u + b[4] * v + b[5] + there * b[10]) / zb - y
                total += np.exp(-0.5 * ((ex * ex + ey * ey) / (_PIXELS * _PIXELS) + apart * apart))
            alike = 1 / (1 + np.exp((cost[row, column] - _HALF) / _STEEP))
            result[row, column] = min(1.0, total / min(_NEEDED, count)) * alike
