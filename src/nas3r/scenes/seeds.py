"""Which few views a scene begins with: those that see the same from different places."""

import numpy as np
from jaxtyping import Bool, Int

from nas3r.scenes.view_graph import ViewGraph

_LEAST = 3


def seed_views(graph: ViewGraph, usable: Bool[np.ndarray, "v"], most: int) -> Int[np.ndarray, "k"]:
    """Views that share most matches which no homography explains; ascending, none if hardly any do.

    Args:
        graph: Who sees what.
        usable: Which views may be chosen.
        most: How many to choose.
    """
    worth = np.sqrt(graph.apart * usable[:, None] * usable)
    if not worth.any():
        return np.zeros(0, int)
    chosen = [int(view) for view in np.unravel_index(int(worth.argmax()), worth.shape)]
    while len(chosen) < most:
        gain = worth[chosen].sum(0)
        gain[chosen] = 0
        if not gain.any():
            break
        chosen.append(int(gain.argmax()))
    return np.sort(np.array(chosen, int)) if len(chosen) >= _LEAST else np.zeros(0, int)
