"""The HTML page of an evaluation: one file, nothing loaded from elsewhere."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas3r.evaluation.report.charts import Chart
from nas3r.evaluation.report.tables import Table
from nas3r.io.atomic import atomic_path

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1b1b1b; }
body { margin: 0 auto; padding: 1.2rem; max-width: 1180px; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .9rem; font-size: .88rem; }
dt { color: #666; } dd { margin: 0; overflow-wrap: anywhere; } code { font-size: .85rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .86rem; }
th, td { padding: .18rem .5rem; border-bottom: 1px solid #e3e3e3; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #999; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.opens td { border-top: 1px solid #999; } td.best { font-weight: 700; }
.note { color: #555; font-size: .85rem; max-width: 60rem; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; }
.charts figcaption { font-weight: 600; font-size: .9rem; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; margin: .3rem 0 .7rem; }
.row figcaption { font-size: .74rem; color: #555; max-width: 116px; }
.row img { display: block; width: 116px; image-rendering: pixelated; }
.skipped { color: #a33; font-size: .88rem; }
"""


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures under one heading; each picture is (caption, file name)."""

    title: str
    rows: Sequence[Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class Page:
    """What stands on the page.

    Attributes:
        title: Heading.
        facts: What was run, how and on what: (name, text).
        tables: In order.
        charts: In order.
        galleries: In order.
        skipped: Sentences on what was left out.
        charts_first: Whether charts stand above the tables.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    tables: Sequence[Table]
    charts: Sequence[Chart]
    galleries: Sequence[Gallery]
    skipped: Sequence[str]
    charts_first: bool = False


def write_page(path: Path, page: Page, pictures: Path) -> None:
    """Writes the page atomically, with the pictures in it.

    Args:
        path: The HTML file.
        page: Its content.
        pictures: Folder of the files that galleries name; a missing one leaves its caption.
    """
    facts = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in page.facts)
    parts = [f"<h1>{html.escape(page.title)}</h1><dl>{facts}</dl>"]
    if page.skipped:
        items = "".join(f"<li>{html.escape(s)}</li>" for s in page.skipped)
        parts.append(
            f"<section class=skipped><h2>Left out: {len(page.skipped)}</h2><ul>{items}</ul></section>"
        )
    tables, charts = "".join(table.html() for table in page.tables), _charts(page.charts)
    parts += [charts, tables] if page.charts_first else [tables, charts]
    for gallery in page.galleries:
        rows = "".join(f"<div class=row>{_figures(row, pictures)}</div>" for row in gallery.rows)
        parts.append(f"<section><h2>{html.escape(gallery.title)}</h2>{rows}</section>")
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(page.title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(document, encoding="utf-8")


def _charts(charts: Sequence[Chart]) -> str:
    if not charts:
        return ""
    figures = "".join(
        f"<figure><figcaption>{html.escape(c.title)}</figcaption>{c.svg}</figure>" for c in charts
    )
    return f"<section><h2>Curves</h2><div class=charts>{figures}</div></section>"


def _figures(row: Sequence[tuple[str, str]], folder: Path) -> str:
    out = []
    for caption, name in row:
        file = folder / name
        image = ""
        if file.is_file():
            data = base64.b64encode(file.read_bytes()).decode()
            image = f'<img src="data:image/png;base64,{data}" alt="{html.escape(caption)}">'
        out.append(f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>")
    return "".join(out)
