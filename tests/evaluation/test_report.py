"""Tables, charts and the page."""

import xml.etree.ElementTree as ElementTree

import pytest
import torch

from nas3r.evaluation.report import Album, Column, Page, Series, Table, line_chart, write_page
from nas3r.evaluation.report.charts import HEIGHT, WIDTH
from nas3r.evaluation.report.page import Gallery
from nas3r.evaluation.report.pictures import colourise, depth_picture

TABLE = Table(
    "Numbers",
    [
        Column("class"),
        Column("method"),
        Column("good", 2, "high"),
        Column("bad", 1, "low"),
        Column("none", 1),
    ],
    [["a", "x", 1.0, 3.04, None], ["a", "y", 2.0, 3.01, None], ["b", "<z>", 0.5, None, None]],
    "A note.",
    group=0,
)


def test_markdown():
    lines = TABLE.compact().markdown().splitlines()
    assert lines[0] == "## Numbers"
    assert lines[2] == "| class | method | good ↑ | bad ↓ |"
    assert lines[5] == "| a | y | **2.00** | 3.0 |"  # 3.04 and 3.01 look equal: none is best
    assert lines[6] == "| b | <z> | 0.50 | – |"
    assert lines[-1] == "A note."


def test_html_is_escaped_and_marks_the_best():
    text = TABLE.html()
    assert "&lt;z&gt;" in text
    assert text.count("best") == 1
    assert text.count("class=opens") == 1


def test_rows_must_fit():
    with pytest.raises(ValueError, match="cells a row"):
        Table("t", [Column("a")], [["x", 1.0]])


def test_chart_is_an_image_of_its_points():
    chart = line_chart("c", "x <unit>", "y", [Series("one & two", [0, 1, 2], [1.0, None, 3.0])], markers=True)
    root = ElementTree.fromstring(chart.svg)
    assert len(root.findall(".//{*}circle")) == 2
    assert "one & two" in [t.text for t in root.iter() if t.text]
    with pytest.raises(ValueError, match="at least one point"):
        line_chart("c", "x", "y", [Series("s", [0.0], [None])])


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [1e-9, 2e-9], [-3.0, 1e6]])
def test_chart_of_odd_values(values):
    chart = line_chart("c", "x", "y", [Series("s", list(range(len(values))), values)], markers=True)
    root = ElementTree.fromstring(chart.svg)
    dots = [(float(c.get("cx", "nan")), float(c.get("cy", "nan"))) for c in root.findall(".//{*}circle")]
    assert len(dots) == len(values)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in dots)
    # From left to right; the larger a value, the higher (y points down).
    assert dots == sorted(dots)
    heights = [-y for _, y in dots]
    assert sorted(range(len(dots)), key=heights.__getitem__) == sorted(
        range(len(dots)), key=values.__getitem__
    )


def test_page_holds_its_pictures(tmp_path):
    album = Album(tmp_path, "p")
    album.add_row(("one", torch.rand(3, 16, 16)), ("two", colourise(torch.tensor([[0.0, torch.nan]]), 0, 1)))
    silent = Album(tmp_path, "q", enabled=False)
    silent.add_row(("one", torch.rand(3, 16, 16)))
    assert silent.rows == []
    rows = [*album.rows, [("gone", "missing.png")]]
    chart = line_chart("c", "x", "y", [Series("s", [0, 1], [0, 1])])
    page = Page("T & T", [("command", "x < y")], [TABLE], [chart], [Gallery("g", rows)], ["scene: why"])
    write_page(tmp_path / "page.html", page, tmp_path)
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/png;base64,") == 2
    assert "T &amp; T" in text
    assert "x &lt; y" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # nothing is loaded from elsewhere


def test_colours_are_in_range_and_unknown_is_grey():
    picture = depth_picture(torch.tensor([[0.0, 1.0, 10.0]]), 1.0, 10.0)
    assert picture.shape == (3, 1, 3)
    assert bool(((picture >= 0) & (picture <= 1)).all())
    torch.testing.assert_close(picture[:, 0, 0], torch.full((3,), 0.6))
    assert picture[:, 0, 1].sum() > picture[:, 0, 2].sum()  # near is bright
