"""How much memory there is, asked before it is taken."""

import os
from collections.abc import Callable
from pathlib import Path

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_CGROUP_USAGES = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


class InsufficientMemoryError(MemoryError):
    """What was asked for would not fit into memory; the message says what would."""


def available_memory() -> int | None:
    """Bytes that this process could still take; None where the system does not tell."""
    found = [value for value in (_of_system(), _of_container(), _of_process()) if value is not None]
    return max(0, min(found)) if found else None


def require_memory(needed: float, what: str, advice: str) -> None:
    """Raises InsufficientMemoryError if so many bytes are not there.

    Args:
        needed: Bytes.
        what: What they are needed for, as the subject of a sentence.
        advice: What would fit, or what to do.
    """
    free = available_memory()
    if free is not None and needed > free:
        raise InsufficientMemoryError(
            f"{what} would take about {_gigabytes(needed)} of memory, with {_gigabytes(free)} free: {advice}"
        )


def require_memory_for_size(needed: Callable[[int], float], size: int, what: str) -> None:
    """Raises InsufficientMemoryError, naming the largest `--size` that would fit, if this one does not.

    Args:
        needed: Bytes by the side of square images.
        size: That was asked for.
        what: What they are needed for, as a word before "images of".
    """
    free = available_memory()
    if free is None or needed(size) <= free:
        return
    fits = size
    while fits > 1 and needed(fits) > free:
        fits = int(0.95 * fits)
    advice = f"--size {fits} would fit" if fits > 1 else "look at less"
    require_memory(needed(size), f"{what} images of {size} x {size} pixels", advice)


def _of_system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not on Linux
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):
            return None
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    words = values.get("MemAvailable", "").split()
    return int(words[0]) * 1024 if words else None


def _of_container() -> int | None:
    limit = _first_number(_CGROUP_LIMITS)
    usage = _first_number(_CGROUP_USAGES)
    return None if limit is None or usage is None else limit - usage


def _of_process() -> int | None:
    """What a limit of the shell (`ulimit -v`) leaves."""
    try:
        import resource
    except ModuleNotFoundError:  # not on Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return limit
    return limit - used


def _first_number(paths: tuple[str, ...]) -> int | None:
    for path in paths:
        try:
            return int(Path(path).read_text())
        except (OSError, ValueError):  # "max" is no limit
            continue
    return None


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:,.1f} GB"
