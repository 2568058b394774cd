"""Data that a source leaves out, and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rejection:
    """Something that training will not see.

    Attributes:
        name: Of the clip, file or folder.
        reason: Why, in a few words.
    """

    name: str
    reason: str
