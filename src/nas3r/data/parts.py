"""Work split among machines: part I of N."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One of several equal parts of some work.

    Attributes:
        number: From 1 on.
        of: How many there are.
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ValueError(f"expected a part from 1/{self.of} to {self.of}/{self.of}, got {self}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def holds(self, key: int) -> bool:
        """Whether the work with a number belongs to this part; every number belongs to exactly one."""
        return key % self.of == self.number - 1


def parse_part(text: str | None) -> Part:
    """A part written as "I/N"; everything for None.

    Raises:
        ValueError: If it is not written so.
    """
    if text is None:
        return Part()
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise ValueError(f"--part: expected I/N, as 2/8, got {text!r}")
    return Part(int(match[1]), int(match[2]))
