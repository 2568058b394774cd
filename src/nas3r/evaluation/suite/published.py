"""The published figures: cells of tables, each with its source; a cell whose figure is not known is empty."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from nas3r.evaluation.suite.evaluations import Evaluation
from nas3r.io.json_files import read_object, reading_fields
from nas3r.models.official.catalog import card_of

Source = Literal["paper", "third_party"]

_FILE = Path(__file__).with_name("published.json")
_FROM_NOTHING = "nas3r-re10k"  # the method's own row: random weights, RealEstate10K


@dataclass(frozen=True)
class Figure:
    """One cell of a published table.

    Attributes:
        table: Which.
        source: "paper", or "third_party" for measurements of the published weights by others.
        weights: Name of the weights it was measured with.
        evaluation: Name of the evaluation.
        overlap: Overlap class; "all" for the mean over all.
        figure: What was measured.
        value: None where it is not known here.
    """

    table: str
    source: Source
    weights: str
    evaluation: str
    overlap: str
    figure: str
    value: float | None


@lru_cache(maxsize=1)
def published_figures() -> tuple[Figure, ...]:
    """All figures of the data file."""
    with reading_fields(str(_FILE), "list of published figures"):
        return tuple(Figure(**entry) for entry in read_object(_FILE)["figures"])


def source_texts() -> dict[str, str]:
    """What each source is, and how its figures came here."""
    sources = read_object(_FILE)["sources"]
    return {name: f"{source['title']}; read in {source['read_in']}" for name, source in sources.items()}


def row_of(weights: str | None, evaluation: Evaluation) -> str:
    """Which published row some weights are compared with: their own, or that of the method from nothing."""
    card = card_of(weights)
    if card is not None:
        return card.name
    return _FROM_NOTHING if evaluation.views == 2 else f"{_FROM_NOTHING}-multiview"


def look_up(row: str, evaluation: str, overlap: str, figure: str, source: Source) -> float | None:
    """A published figure; None where it is not known."""
    key = (row, evaluation, overlap, figure, source)
    return next(
        (
            f.value
            for f in published_figures()
            if (f.weights, f.evaluation, f.overlap, f.figure, f.source) == key
        ),
        None,
    )
