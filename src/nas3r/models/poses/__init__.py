"""How poses are found: a part of the network with two makes behind one interface.

`Regressed` is the published method: the camera head's word counts. With `Solved`, views are matched with each
other before the decoder, `nas3r.solver` finds poses and focal length, and the camera head corrects them.
"""

from nas3r.models.poses.interface import Clues, PoseFinder
from nas3r.models.poses.regressed import Regressed
from nas3r.models.poses.solved import Solved

__all__ = ["Clues", "PoseFinder", "Regressed", "Solved"]
