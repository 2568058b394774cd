"""Entry point of `nas3r`: finds the verb, imports only its module, turns errors into exit codes.

A verb's module defines `Command`, a dataclass (or a union of dataclasses for sub-verbs) whose fields are the
options and whose `run()` does the work.

Exit codes: 0 success; 1 unexpected error (a bug, with traceback); 2 bad input or options; 3 out of disk or
memory; 130 interrupted.
"""

import importlib
import logging
import os
import sys

from nas3r.bounds import check_bounds
from nas3r.cli.failures import EXIT_BAD_INPUT, EXIT_INTERRUPTED, explained
from nas3r.cli.streams import abandon, patient_streams
from nas3r.stopping import StopSignals

VERBS = {
    "reconstruct": "photos or a video in; cameras, depth, Gaussians and a report out",
    "view": "interactive viewer of a result in the browser",
    "export": "a web page of a result, for any web server or the disk",
    "render": "fly-through video or frames from a result",
    "train": "self-supervised training on images without labels",
    "evaluate": "novel views, pose, depth and stress tests, with baselines",
    "annotate": "cameras, depth and confidence for every clip of a sharded corpus",
    "weights": "what can be loaded by name, and what is known of it",
    "data": "prepare, inspect and synthesise training data",
    "demo": "the whole thing on a generated scene, in about a minute",
}


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

    from nas3r.devices import check_device

    command = tyro.cli(
        importlib.import_module(f"nas3r.cli.{verb}").Command, prog=f"nas3r {verb}", args=arguments
    )
    check_bounds(command, lambda name: "--" + name.replace("_", "-"))
    check_device(getattr(command, "device", None))
    return command.run() or 0


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else EXIT_BAD_INPUT
    if arguments[0] == "--version":
        from nas3r import __version__

        print(f"nas3r {__version__}")
        return 0
    if arguments[0] == "--print-completion" and len(arguments) == 2:
        from nas3r.cli.completion import print_completion

        print_completion(arguments[1], VERBS)
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        raise ValueError(f"unknown verb {verb!r}; expected one of {', '.join(VERBS)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return _run_verb(verb, arguments[1:])


def _report(error: BaseException) -> int:
    """Prints one sentence for errors that are not bugs; re-raises the others."""
    meaning = None if os.environ.get("NAS3R_DEBUG") else explained(error)
    if meaning is None:
        raise error
    sentence, code = meaning
    print(f"nas3r: {sentence}", file=sys.stderr)
    return code


def _last_words() -> int:
    """Writes out what is still to be said; only now does a full disk behind standard output show."""
    try:
        sys.stdout.flush()
    except OSError as error:
        abandon(sys.stdout)
        error.filename = "standard output"
        return _report(error)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    with patient_streams(), StopSignals() as stop:
        try:
            code = _run(arguments)
            if stop.received is None:
                return _last_words() or code
        except KeyboardInterrupt:
            pass
        except Exception as error:
            if stop.received is None:
                return _report(error)
        print("nas3r: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
