"""Where a measurement comes from: what every JSON of `benchmarks/results` says of itself."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas3r.evaluation.provenance import Provenance, describe_weights
from nas3r.models import NAS3R

_ROOT = Path(__file__).parents[1]


def commit() -> str:
    """Of the code that runs; "+ changes" follows if the working tree has any."""
    head = _git("rev-parse", "HEAD")
    return f"{head} + changes" if _git("status", "--porcelain", "--untracked-files=no") else head


def origin(data: Sequence[Path], model: NAS3R | None, weights: str | None = None) -> dict[str, Any]:
    """Command, data, weights, version, hardware and commit.

    Args:
        data: Folders that were measured on; only their names are told.
        model: That was measured; None where no weights matter.
        weights: Its name; None for those that ship.
    """
    folders = {str(folder): folder.name for folder in data}
    words = [folders.get(word, Path(word).name if word.startswith("/") else word) for word in sys.argv[1:]]
    command = f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(words)}".strip()
    told = {} if model is None else describe_weights(weights, model)
    names = ", ".join(folder.name for folder in data)
    return Provenance(command, names, told).to_dict() | {"commit": commit()}


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=_ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
