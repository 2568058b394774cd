"""What the suite evaluates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nas3r.evaluation.suite.data_sets import DATA_SETS, DataSet

Task = Literal["nvs", "pose", "depth"]

_TITLES = {"nvs": "novel views", "pose": "pose", "depth": "depth"}
_OF_DATA: tuple[tuple[Task, str], ...] = (
    ("nvs", "re10k"),
    ("nvs", "acid"),
    ("nvs", "dtu"),
    ("pose", "re10k"),
    ("pose", "acid"),
    ("pose", "dl3dv"),
    ("depth", "blendedmvs"),
)
_MORE_VIEWS = "re10k"  # where more than two context views are evaluated


@dataclass(frozen=True)
class Evaluation:
    """One task on one data set with one number of views.

    Attributes:
        task: "nvs", "pose" or "depth".
        data_set: Whose scenes.
        views: Number of context views.
    """

    task: Task
    data_set: DataSet
    views: int

    @property
    def name(self) -> str:
        """Of its folder, and of its figures in published.json."""
        return f"{self.task}-{self.data_set.name}-{self.views}"

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.data_set.title}, {_TITLES[self.task]}, {self.views} views"


def evaluations(views: Sequence[int]) -> list[Evaluation]:
    """All evaluations: two views everywhere they are asked for, more on RealEstate10K.

    Raises:
        ValueError: If a number of views is not from 2 to 10.
    """
    if not views or any(not 2 <= count <= 10 for count in views):
        raise ValueError(
            f"expected numbers of views from 2 to 10, got {', '.join(map(str, views)) or 'none'}"
        )
    return [
        Evaluation(task, DATA_SETS[name], count)
        for task, name in _OF_DATA
        for count in sorted(set(views))
        if count == 2 or name == _MORE_VIEWS
    ]
