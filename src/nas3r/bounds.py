"""Numbers within bounds: said once, beside the field of a dataclass that holds the number."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints

MOST_PIXELS_A_SIDE = 1 << 16
LARGEST_SEED = 2**63 - 1
MOST_THREADS = 1024  # a system that refuses a thread to OpenMP ends the process without a word


@dataclass(frozen=True)
class Within:
    """Bounds of a number, or of each number of a tuple, in the annotation of a dataclass field.

    Infinities and NaN are never within.

    Attributes:
        least: Smallest value.
        most: Largest value.
        above: The value must be larger than this, where `least` itself is not allowed.
    """

    least: float = -math.inf
    most: float = math.inf
    above: float | None = None

    def __contains__(self, value: float) -> bool:
        try:
            finite = math.isfinite(value)
        except OverflowError:  # an integer beyond all floats
            return False
        return finite and self.least <= value <= self.most and (self.above is None or value > self.above)

    @property
    def text(self) -> str:
        """E.g. "from 1 to 100"."""
        parts = []
        if self.above is not None:
            parts.append("above " + _plain(self.above))
        if math.isfinite(self.least):
            parts.append(("from " if math.isfinite(self.most) else "of at least ") + _plain(self.least))
        if math.isfinite(self.most):
            parts.append(("to " if math.isfinite(self.least) else "up to ") + _plain(self.most))
        return " ".join(parts) or "that is finite"


def check_bounds(part: Any, called: Callable[[str], str] = str) -> None:
    """Checks the numbers of a dataclass, and of those in its fields, against the bounds in their annotations.

    Args:
        part: An instance.
        called: What messages call a field of that name.

    Raises:
        ValueError: Naming the first number that is out of its bounds.
    """
    for name, bounds, value in bounded_fields(part):
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and number not in bounds:
                kind = "an integer" if isinstance(number, int) else "a number"
                raise ValueError(f"{called(name)}: expected {kind} {bounds.text}, got {number!r:.40}")
    for f in fields(part):
        if is_dataclass(inner := getattr(part, f.name)):
            check_bounds(inner, called)


def bounded_fields(part: Any) -> Iterator[tuple[str, Within, Any]]:
    """Name, bounds and value of each field that has bounds."""
    hints = get_type_hints(type(part), include_extras=True)
    for f in fields(part):
        bounds = next((extra for extra in get_args(hints[f.name])[1:] if isinstance(extra, Within)), None)
        if bounds is not None:
            yield f.name, bounds, getattr(part, f.name)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"
