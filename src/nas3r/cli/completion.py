"""Shell completion of all verbs and their options: `nas3r --print-completion bash`."""

import importlib
from typing import Annotated, Any, Union

import tyro

SHELLS = ("bash", "zsh", "tcsh")


def print_completion(shell: str, verbs: dict[str, str]) -> None:
    """Prints the completion script of a shell.

    Args:
        shell: One of `SHELLS`.
        verbs: Name and description of each verb.

    Raises:
        ValueError: For another shell.
    """
    if shell not in SHELLS:
        raise ValueError(f"--print-completion: expected one of {', '.join(SHELLS)}, got {shell!r}")
    commands = [
        Annotated[
            importlib.import_module(f"nas3r.cli.{verb}").Command,
            tyro.conf.subcommand(name=verb, description=description),
        ]
        for verb, description in verbs.items()
    ]
    # One parser for all verbs: only here, since building it imports them all.
    every: Any = Union[tuple(commands)]  # noqa: UP007  (of a list that is only known here)
    tyro.cli(every, prog="nas3r", args=["--tyro-print-completion", shell])
