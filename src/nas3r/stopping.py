"""Being asked to stop: Ctrl-C, or a signal that means the same."""

import signal
import threading
from types import FrameType

STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # SIGHUP is not known everywhere


class StopSignals:
    """While this is entered, these signals raise KeyboardInterrupt in the main thread, and are remembered.

    Some libraries swallow the exception, when it lands in a callback of theirs, and then go on or fail in
    words of their own: whatever follows a signal is an interruption. Handlers that somebody else has set are
    left alone.

    Attributes:
        received: The first signal that came; None before.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                handler = signal.getsignal(number)
                if handler in (signal.default_int_handler, signal.SIG_DFL):
                    self._before[number] = handler
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        raise KeyboardInterrupt


def raise_if_stopped() -> None:
    """Raises KeyboardInterrupt if a signal has come since `StopSignals` was entered, whoever swallowed it.

    Asked before anything is replaced.
    """
    handler = signal.getsignal(signal.SIGINT)
    owner = getattr(handler, "__self__", None)
    if isinstance(owner, StopSignals) and owner.received is not None:
        raise KeyboardInterrupt
