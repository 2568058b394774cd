"""Figures that pages show are of the weights that ship."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nas3r
from nas3r.evaluation.provenance import describe_weights

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DIGESTS = json.loads((RESULTS / "default-weights" / "digests.json").read_text())
SHIPPED = ROOT / "src" / "nas3r" / "weights" / "default.safetensors"
# What no weights matter for, or random ones.
WITHOUT_WEIGHTS = {"loading", "model", "processes", "protocols", "render", "synthetic"}
# Older than the origin that they should tell; they say nothing of their weights.
SILENT = {"told_focal"}


def shown() -> Iterator[tuple[str, str]]:
    """Pages, and the results that they name."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for name in sorted(set(re.findall(r"benchmarks/results/([\w-]+)\.json", page.read_text()))):
            yield page.name, name


def weights_of(content: Any) -> Iterator[dict[str, str]]:
    """What a result says of its weights, wherever it says it."""
    if isinstance(content, dict):
        if isinstance(content.get("weights"), dict):
            yield content["weights"]
        for value in content.values():
            yield from weights_of(value)
    elif isinstance(content, list):
        for value in content:
            yield from weights_of(value)


def test_the_digests_are_those_of_the_weights_that_ship() -> None:
    assert hashlib.sha256(SHIPPED.read_bytes()).hexdigest() == DIGESTS["file"]
    assert describe_weights(None, nas3r.load(device="cpu"))["sha256"] in DIGESTS["tensors"]


@pytest.mark.parametrize(("page", "name"), shown())
def test_a_page_shows_results_of_the_weights_that_ship(page: str, name: str) -> None:
    if name in WITHOUT_WEIGHTS | SILENT:
        return
    found = list(weights_of(json.loads((RESULTS / f"{name}.json").read_text())))
    assert found, f"{page} shows {name}.json, which does not say what weights it is of"
    other = [weights for weights in found if weights and weights["sha256"] not in DIGESTS["tensors"]]
    assert not other, f"{page} shows {name}.json, which is of other weights than ship"
