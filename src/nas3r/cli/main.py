"""Entry point of `nas3r`: finds the verb, imports only its module, turns errors into exit codes.

A verb's module defines `Command`, a dataclass (or a union of dataclasses for sub-verbs) whose fields are the
options and whose `run()` does the work.

Exit codes: 0 success; 1 unexpected error (a bug, with traceback); 2 bad input or options; 3 out of disk or
memory; 130 interrupted.
"""

import errno
import importlib
import logging
import os
import sys

from nas3r.stopping import StopSignals

VERBS = {
    "reconstruct": "photos or a video in; cameras, depth, Gaussians and a report out",
    "view": "interactive viewer of a result in the browser",
    "render": "fly-through video or frames from a result",
    "train": "self-supervised training on images without labels",
    "evaluate": "novel views, pose, depth and stress tests, with baselines",
    "data": "prepare, inspect and synthesise training data",
    "demo": "the whole thing on a generated scene, in about a minute",
}

EXIT_BUG, EXIT_BAD_INPUT, EXIT_NO_RESOURCES, EXIT_INTERRUPTED = 1, 2, 3, 130


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            "usage: nas3r VERB [OPTIONS]",
            "",
            "Cameras, depth and 3D Gaussians from unposed photos or video.",
            "",
            *lines,
            "",
            "nas3r VERB --help lists the options of a verb; nas3r --version prints the version;",
            "nas3r --print-completion {bash,zsh,tcsh} prints a script for the shell's tab key.",
            "Exit codes: 0 success, 1 bug, 2 bad input, 3 out of disk or memory, 130 interrupted.",
        ]
    )


def _run_verb(verb: str, arguments: list[str]) -> int:
    import tyro

    command = importlib.import_module(f"nas3r.cli.{verb}").Command
    return tyro.cli(command, prog=f"nas3r {verb}", args=arguments).run() or 0


def _print_completion(shell: str) -> int:
    from nas3r.cli.completion import print_completion

    try:
        print_completion(shell, VERBS)
    except ValueError as error:
        return _report(error)
    return 0


def _is_out_of_memory(error: BaseException) -> bool:
    # torch's CPU allocator raises a plain RuntimeError; CUDA has its own subclass with this text in it.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and any(text in str(error) for text in ("out of memory", "can't allocate memory"))
    )


def _report(error: BaseException) -> int:
    """Prints one sentence for errors that are not bugs; re-raises the others."""
    if os.environ.get("NAS3R_DEBUG"):
        raise error
    if _is_out_of_memory(error):
        message, code = "out of memory: use fewer or smaller images (--views, --size)", EXIT_NO_RESOURCES
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message, code = f"no space left on the disk: {error.filename or error}", EXIT_NO_RESOURCES
    elif isinstance(error, OSError | ValueError | ModuleNotFoundError):
        message, code = " ".join(str(error).split()), EXIT_BAD_INPUT
    else:
        raise error
    print(f"nas3r: {message}", file=sys.stderr)
    return code


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else EXIT_BAD_INPUT
    if arguments[0] == "--version":
        from nas3r import __version__

        print(f"nas3r {__version__}")
        return 0
    if arguments[0] == "--print-completion" and len(arguments) == 2:
        return _print_completion(arguments[1])
    verb = arguments[0]
    if verb not in VERBS:
        print(f"nas3r: unknown verb {verb!r}; expected one of {', '.join(VERBS)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with StopSignals() as stop:
        try:
            code = _run_verb(verb, arguments[1:])
            if stop.received is None:
                return code
        except KeyboardInterrupt:
            pass
        except Exception as error:
            if stop.received is None:
                return _report(error)
    print("nas3r: interrupted", file=sys.stderr)
    return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
