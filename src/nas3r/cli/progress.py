"""Progress bars that appear for slow steps on a terminal, and never elsewhere."""

import sys

from tqdm import tqdm


class ProgressBars:
    """One bar per named step; call it with (what, done, total)."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows that `done` of `total` parts of the step `what` are done."""
        if not sys.stderr.isatty():
            return
        if self._bar is None or (what != self._what and total != self._bar.total):
            self.close()
            self._bar = tqdm(total=total, leave=False, delay=0.3, dynamic_ncols=True)
        if what != self._what:
            self._what = what
            self._bar.set_description(what)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._what = None, ""

    def __enter__(self) -> "ProgressBars":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()
