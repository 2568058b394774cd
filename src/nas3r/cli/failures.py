"""What an error means to the person who gave the command: one sentence and an exit code, or a bug."""

import errno

from nas3r.memory import InsufficientMemoryError

EXIT_BAD_INPUT, EXIT_NO_RESOURCES, EXIT_INTERRUPTED = 2, 3, 130  # a bug ends with Python's 1

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Libraries that write with code of their own say it in words of their own: safetensors and FFmpeg in the
# system's, torch by what its zip writer stumbled over while it handled the first error.
_NO_SPACE_TEXTS = ("No space left on device", "Disk quota exceeded")
_TORCH_WRITER, _TORCH_CAUSE = "inline_container.cc", "iostream error"
# torch's CPU allocator raises a plain RuntimeError; CUDA has its own subclass with this text in it.
_NO_MEMORY_TEXTS = ("out of memory", "can't allocate memory")

_REASONS = {
    errno.ENOENT: "no such file or folder",
    errno.ENOTDIR: "a part of this path is a file, where a folder was expected",
    errno.EISDIR: "is a folder, where a file was expected",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EINVAL: "cannot be read or written in this way (Invalid argument)",
}


def explained(error: BaseException) -> tuple[str, int] | None:
    """A sentence and the exit code; None for a bug.

    Whoever raises ValueError, OSError or ModuleNotFoundError has said what is wrong with what was given.
    """
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(t in text for t in _NO_MEMORY_TEXTS)
    ):
        told = text if isinstance(error, InsufficientMemoryError) else ""
        return told or "out of memory: use fewer or smaller images (--views, --size)", EXIT_NO_RESOURCES
    if _is_out_of_space(error, text):
        where = getattr(error, "filename", None)
        return "no space left on the disk" + (f": {_shown(where)}" if where else ""), EXIT_NO_RESOURCES
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        reason = _REASONS.get(error.errno) or error.strerror or type(error).__name__
        return f"{_shown(error.filename)}: {reason}", EXIT_BAD_INPUT
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return str(error.strerror), EXIT_BAD_INPUT
    if isinstance(error, OSError | ValueError | ModuleNotFoundError):
        return text or type(error).__name__, EXIT_BAD_INPUT
    return None


def _is_out_of_space(error: BaseException, text: str) -> bool:
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    if isinstance(error, RuntimeError) and _TORCH_WRITER in text and error.__context__ is not None:
        earlier = error.__context__
        return _TORCH_CAUSE in str(earlier) or _is_out_of_space(earlier, str(earlier))
    return any(t in text for t in _NO_SPACE_TEXTS)


def _shown(name: object) -> str:
    text = name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)
    return text.removeprefix("file:")  # how FFmpeg is told that it may open nothing but files
