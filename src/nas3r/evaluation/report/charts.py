"""Line charts as self-contained SVG."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 44
# Okabe and Ito's palette, told apart with every common colour vision; then dashes.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8a8a00")


@dataclass(frozen=True)
class Series:
    """One line: x and y of its points; None is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        title: Heading.
        svg: The drawing.
    """

    title: str
    svg: str


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    *,
    y_range: tuple[float, float] | None = None,
    markers: bool = False,
) -> Chart:
    """Draws lines over common axes.

    Args:
        title: Of the chart.
        x_label: With its unit.
        y_label: With its unit.
        series: Lines, drawn in this order.
        y_range: Ends of the y axis; by default what the values span.
        markers: Whether to draw a dot at each point.

    Raises:
        ValueError: If there is no point.
    """
    points = [(x, y) for s in series for x, y in zip(s.x, s.y, strict=True) if y is not None]
    if not points:
        raise ValueError(f"{title}: a chart needs at least one point")
    xs = _ticks(min(x for x, _ in points), max(x for x, _ in points), tight=True)
    ys = _ticks(*(y_range or (min(y for _, y in points), max(y for _, y in points))))
    axes = _Axes(xs, ys)
    parts = [axes.draw(x_label, y_label)]
    for number, line in enumerate(series):
        parts.append(_draw_series(line, number, axes, markers))
    legend_rows = math.ceil(len(series) / 2)
    height = HEIGHT + 16 * legend_rows
    parts += [_legend(s.name, k) for k, s in enumerate(series)]
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{html.escape(title)}" xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" '
        f'font-size="11">{"".join(parts)}</svg>'
    )
    return Chart(title, svg)


class _Axes:
    """Maps data to the page."""

    def __init__(self, xs: list[float], ys: list[float]) -> None:
        self.xs, self.ys = xs, ys

    def x(self, value: float) -> float:
        span = self.xs[-1] - self.xs[0]
        return _LEFT + (value - self.xs[0]) / span * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.ys[0], self.ys[-1]
        share = min(max((value - low) / (high - low), 0), 1)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    def draw(self, x_label: str, y_label: str) -> str:
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        parts = []
        for tick in self.ys:
            y = self.y(tick)
            parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        for tick in self.xs:
            x = self.x(tick)
            parts.append(f'<path d="M{x:.1f} {bottom}v4" stroke="#555"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#555"/>')
        middle = (_LEFT + right) / 2
        parts.append(
            f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle">{html.escape(x_label)}</text>'
        )
        parts.append(
            f'<text transform="translate(12 {(_TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">'
            f"{html.escape(y_label)}</text>"
        )
        return "".join(parts)


def _style(number: int) -> str:
    dash = "" if number < len(_COLOURS) else ' stroke-dasharray="5 3"'
    return f'stroke="{_COLOURS[number % len(_COLOURS)]}"{dash}'


def _draw_series(line: Series, number: int, axes: _Axes, markers: bool) -> str:
    commands, pen_down = [], False
    dots = []
    for x, y in zip(line.x, line.y, strict=True):
        if y is None:
            pen_down = False
            continue
        place = f"{axes.x(x):.1f} {axes.y(y):.1f}"
        commands.append(f"{'L' if pen_down else 'M'}{place}")
        pen_down = True
        if markers:
            px, py = place.split()
            dots.append(f'<circle cx="{px}" cy="{py}" r="3" fill="{_COLOURS[number % len(_COLOURS)]}"/>')
    path = f'<path d="{"".join(commands)}" fill="none" stroke-width="1.8" {_style(number)}/>'
    return path + "".join(dots)


def _legend(name: str, number: int) -> str:
    x = _LEFT + (number % 2) * (WIDTH - _LEFT) / 2
    y = HEIGHT + 16 * (number // 2) + 6
    line = f'<path d="M{x:.0f} {y - 4}h18" stroke-width="2" {_style(number)}/>'
    return f'{line}<text x="{x + 24:.0f}" y="{y}">{html.escape(name)}</text>'


def _ticks(low: float, high: float, *, tight: bool = False, count: int = 5) -> list[float]:
    """Round numbers that cover [low, high]; with `tight`, the axis ends at the values themselves if round."""
    if high <= low:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - (0 if tight else margin), high + margin
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]
