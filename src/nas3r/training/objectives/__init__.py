"""What a run learns from: pixels (the method), labels, or known warps of single images.

An objective is a small dataclass that says what labels it needs and makes the step of the training loop. A
new one is a file here with the methods of `Photometric`, and its name in `Objective`.
"""

from nas3r.training.objectives.matching import Matching
from nas3r.training.objectives.photometric import Photometric
from nas3r.training.objectives.supervised import Supervised

Objective = Photometric | Supervised | Matching

__all__ = ["Matching", "Objective", "Photometric", "Supervised"]
