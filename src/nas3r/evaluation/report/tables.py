"""`Table`: rows of numbers, as Markdown, HTML and JSON."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Cell = str | float | int | None


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Heading.
        digits: Digits after the point; None for text and counts.
        better: Which end is good; the best value of the column is set in bold.
    """

    name: str
    digits: int | None = None
    better: Literal["high", "low"] | None = None

    def text(self, cell: Cell) -> str:
        """The cell as shown; a missing value is a dash."""
        if cell is None:
            return "–"
        if isinstance(cell, str) or self.digits is None:
            return str(cell)
        return f"{cell:.{self.digits}f}"

    @property
    def heading(self) -> str:
        """Name with an arrow to the good end."""
        return self.name + {"high": " ↑", "low": " ↓", None: ""}[self.better]


@dataclass(frozen=True)
class Table:
    """A titled table.

    Attributes:
        title: Heading.
        columns: Columns.
        rows: Cells, as many as columns.
        note: One or two sentences under the table.
        group: Number of a column, left of any that may be empty, whose equal values belong together: the best
            value is found within each group (e.g. overlap class). None: in the whole column.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    group: int | None = None
    _best: set[tuple[int, int]] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: expected {len(self.columns)} cells a row, got {len(row)}")
        groups = {None if self.group is None else row[self.group] for row in self.rows}
        for group in groups:
            rows = [i for i, r in enumerate(self.rows) if self.group is None or r[self.group] == group]
            self._mark_best(rows)

    def _mark_best(self, rows: list[int]) -> None:
        if len(rows) < 2:
            return
        for c, column in enumerate(self.columns):
            texts = {i: column.text(self.rows[i][c]) for i in rows if self.rows[i][c] is not None}
            if column.better is None or not texts:
                continue
            values = {
                i: float(text) for i, text in texts.items()
            }  # as shown: what looks equal is equally good
            if len(set(values.values())) == 1:
                continue
            best = (max if column.better == "high" else min)(values.values())
            self._best.update((i, c) for i, value in values.items() if value == best)

    def compact(self) -> "Table":
        """The table without columns that have no value at all."""
        kept = [c for c in range(len(self.columns)) if any(row[c] is not None for row in self.rows)]
        columns = [self.columns[c] for c in kept]
        return Table(
            self.title, columns, [[row[c] for c in kept] for row in self.rows], self.note, self.group
        )

    def markdown(self) -> str:
        """GitHub-flavoured Markdown with the title as a heading of level 2."""
        lines = [f"## {self.title}", ""]
        lines.append("| " + " | ".join(c.heading for c in self.columns) + " |")
        lines.append("|" + "|".join(" --- " if c.digits is None else " ---: " for c in self.columns) + "|")
        for i, row in enumerate(self.rows):
            cells = [column.text(cell) for column, cell in zip(self.columns, row, strict=True)]
            cells = [f"**{text}**" if (i, c) in self._best else text for c, text in enumerate(cells)]
            lines.append("| " + " | ".join(cells) + " |")
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """A section with the table."""
        head = "".join(f"<th>{html.escape(c.heading)}</th>" for c in self.columns)
        body = []
        for i, row in enumerate(self.rows):
            cells = []
            for c, (column, cell) in enumerate(zip(self.columns, row, strict=True)):
                css = ["number"] if column.digits is not None else []
                css += ["best"] if (i, c) in self._best else []
                attribute = f' class="{" ".join(css)}"' if css else ""
                cells.append(f"<td{attribute}>{html.escape(column.text(cell))}</td>")
            opens = self.group is not None and i > 0 and row[self.group] != self.rows[i - 1][self.group]
            body.append(f"<tr{' class=opens' if opens else ''}>{''.join(cells)}</tr>")
        note = f"<p class=note>{html.escape(self.note)}</p>" if self.note else ""
        return (
            f"<section><h2>{html.escape(self.title)}</h2><div class=scroll><table>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{note}</section>"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "title": self.title,
            "columns": [c.name for c in self.columns],
            "rows": [list(row) for row in self.rows],
            "note": self.note,
        }
