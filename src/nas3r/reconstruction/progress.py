"""How long work tells how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


def silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""
