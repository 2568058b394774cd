"""Parts that the open air shares."""

from torch import Tensor

from nas3r.data.synthetic.families.scenes import xyz
from nas3r.data.synthetic.layout import Layout
from nas3r.data.synthetic.shapes import CYLINDER, ROUGH


def add_trees(layout: Layout, k: int, x: Tensor, z: Tensor) -> None:
    """Trunks with one or two crowns at floor positions [n, k]."""
    draws = layout.draws
    tall, thick = draws.uniform(k, low=1.2, high=3.0), draws.log_uniform(k, low=0.06, high=0.2)
    present = draws.chance(0.7, k)
    trunk = xyz(thick, tall / 2, thick)
    layout.add(CYLINDER, xyz(x, -tall / 2, z), trunk, layout.materials("trunk", k), present=present)
    crown = draws.uniform(k, 1, low=0.6, high=1.6) * draws.uniform(k, 3, low=0.7, high=1.2)
    place = xyz(x, -tall - 0.6 * crown[..., 1], z)
    layout.add(
        ROUGH, place, crown, layout.materials("foliage", k), rotation=layout.some_yaw(k), present=present
    )
