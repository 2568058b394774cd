"""Tables, charts and pictures, and the page they stand on."""

from nas3r.evaluation.report.charts import Chart, Series, line_chart
from nas3r.evaluation.report.page import Page, write_page
from nas3r.evaluation.report.pictures import Album
from nas3r.evaluation.report.tables import Cell, Column, Table

__all__ = ["Album", "Cell", "Chart", "Column", "Page", "Series", "Table", "line_chart", "write_page"]
