"""The scene families: where solids stand in rooms, corridors, on tables, in streets, in the open, in the air.

A family is a file with a function that draws n scenes and returns their layout and stage.
"""

from collections.abc import Callable

from nas3r.data.synthetic.draws import Draws
from nas3r.data.synthetic.families.clutter import clutter
from nas3r.data.synthetic.families.corridor import corridor
from nas3r.data.synthetic.families.nature import nature
from nas3r.data.synthetic.families.room import room
from nas3r.data.synthetic.families.scenes import Scenes
from nas3r.data.synthetic.families.street import street
from nas3r.data.synthetic.families.tabletop import tabletop

BUILDERS: dict[str, Callable[[Draws], Scenes]] = {
    "room": room,
    "corridor": corridor,
    "tabletop": tabletop,
    "street": street,
    "clutter": clutter,
    "nature": nature,
}

__all__ = ["BUILDERS", "Scenes"]
