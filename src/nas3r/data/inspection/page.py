"""One self-contained HTML page."""

import base64
import html
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from nas3r.data.inspection.measure import ClipLook, Inspection, SampleLook, StepLook
from nas3r.io.atomic import write_text
from nas3r.io.images import Resize

_THUMBNAIL = 128  # pixels, longer side
_MOST_REJECTED = 200  # rows

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --context: #2a78d6; --target: #d6702a;
  --warn: #b3541e; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem }
p.note { opacity: .75; margin: .2rem 0 .8rem; max-width: 75ch }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: middle }
td.n, th.n { text-align: right }
.scroll { overflow-x: auto }
.sample { display: inline-block; margin: 0 1.2rem 1rem 0; vertical-align: top }
.sample .views { display: flex; gap: 3px }
figure { margin: 0 } figure img { display: block; border-top: 4px solid var(--context) }
figure.target img { border-top-color: var(--target) }
figcaption, .what { font-size: .8rem; opacity: .85 }
.what { max-width: 420px; overflow-wrap: anywhere }
td.clip { min-width: 11rem; max-width: 18rem; overflow-wrap: anywhere; font-size: .85rem }
.strip { display: flex; gap: 2px } .strip img { width: 78px; height: 50px; display: block }
ul.warn { border-left: 4px solid var(--warn); padding: .5rem 0 .5rem 1.6rem; background: var(--soft) }
.key { display: inline-block; width: 1.6em; height: 4px; vertical-align: middle; margin: 0 .3em 0 .8em }
.warned { color: var(--warn); font-size: .85rem } svg { display: block }
"""


_HEAD_BYTES = 4096
_MARK = '<meta name="generator" content="nas3r data inspect">'


def check_page(path: Path) -> None:
    """Raises FileExistsError if a page written there would replace something that is none of ours."""
    if path.is_dir():
        raise FileExistsError(f"{path}: is a folder; name an .html file")
    if path.exists():
        with path.open("rb") as file:
            ours = _MARK.encode() in file.read(_HEAD_BYTES)
        if not ours:
            raise FileExistsError(f"{path}: exists, and is no page of nas3r data inspect; name another file")


def write_page(
    path: Path,
    inspection: Inspection,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    rejected: Sequence[tuple[str, str]] = (),
) -> None:
    """Writes the page; it appears complete or not at all.

    Args:
        path: HTML file.
        inspection: What was found.
        title: What was looked at.
        facts: Further rows of the table at the top.
        rejected: Name and reason of what was left out before, when the data was prepared.

    Raises:
        OSError: The file cannot be written.
    """
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _facts(inspection, facts),
        _warnings(inspection.warnings),
        "<h2>Along the curriculum</h2>",
        _curriculum(inspection.steps),
        *(_step(step) for step in inspection.steps),
        "<h2>Clips</h2>",
        f"<p class=note>{len(inspection.looks)} of {inspection.clips} clips, chosen at random. Motion is "
        "the mean displacement of the image content between consecutive frames, in percent of the image "
        "width.</p>",
        _clips(inspection.looks),
        "<h2>Left out</h2>",
        _left_out([*inspection.rejected, *rejected], inspection.replaced),
    ]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'{_MARK}<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
    )
    write_text(path, head + "\n".join(parts) + "</body></html>")


def _facts(inspection: Inspection, facts: Sequence[tuple[str, str]]) -> str:
    frames = [look.frames for look in inspection.looks]
    rows = [("clips", f"{inspection.clips:,}")]
    if frames:
        rows.append(("frames per clip", f"{min(frames)} to {max(frames)}, median {np.median(frames):.0f}"))
    body = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in [*rows, *facts]
    )
    return f"<table>{body}</table>"


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in warnings)
    return f"<ul class=warn>{items}</ul>"


def _curriculum(steps: Sequence[StepLook]) -> str:
    rows = []
    for step in steps:
        cells = [f"{step.step:,}", _bounds(step), f"{step.usable:.0%}"]
        if step.samples:
            motion = np.median([sample.alignment.motion for sample in step.samples])
            related = np.mean([sample.alignment.related for sample in step.samples])
            copy = np.mean([sample.copy_psnr for sample in step.samples])
            cells += [f"{100 * motion:.1f} %", f"{related:.0%}", f"{copy:.1f} dB"]
        else:
            cells += ["", "", ""]
        rows.append("<tr>" + "".join(f"<td class=n>{cell}</td>" for cell in cells) + "</tr>")
    names = ("step", "gap", "clips long enough", "motion", "alignable", "copying reaches")
    head = "".join(f"<th class=n>{name}</th>" for name in names)
    note = (
        "Motion is that between the first and the last context view (median); pairs whose images cannot be "
        "aligned any more count as 50 %. Copying is the PSNR of the context view most like the target: what "
        "training must beat."
    )
    return f"<p class=note>{note}</p><div class=scroll><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _bounds(step: StepLook) -> str:
    low, high = step.bounds
    if isinstance(low, int) and isinstance(high, int):
        return f"{low} to {high} frames"
    return f"{100 * low:.0f} to {100 * high:.0f} % motion"


def _step(step: StepLook) -> str:
    head = (
        f"<h2>Step {step.step:,}</h2><p class=note>gap {_bounds(step)}"
        "<span class=key style='background:var(--context)'></span>context"
        "<span class=key style='background:var(--target)'></span>target</p>"
    )
    return head + ("".join(map(_sample, step.samples)) or f"<p>{html.escape(step.problem)}</p>")


def _sample(sample: SampleLook) -> str:
    order = sorted(
        [(frame, "context", image) for frame, image in zip(sample.context, sample.images)]
        + [(f, "target", image) for f, image in zip(sample.target, sample.images[len(sample.context) :])],
        key=lambda view: view[0],
    )
    views = "".join(
        f'<figure class={kind}><img src="{_data(image)}" alt="{kind} view, frame {frame}">'
        f"<figcaption>{frame}</figcaption></figure>"
        for frame, kind, image in order
    )
    motion = f"motion {100 * sample.alignment.motion:.1f} %" if sample.alignment.related else "not alignable"
    return (
        f"<div class=sample><div class=views>{views}</div><div class=what>{html.escape(sample.clip)}<br>"
        f"gap {sample.gap}, {motion}, copying {sample.copy_psnr:.1f} dB</div></div>"
    )


def _clips(looks: Sequence[ClipLook]) -> str:
    rows = []
    for look in looks:
        small = (Resize(look.width, look.height, 156, 100).apply(image) for image in look.strip)
        strip = "".join(f'<img src="{_data(image)}" alt="">' for image in small)
        warned = "".join(f"<div class=warned>{html.escape(text)}</div>" for text in look.warnings)
        median = f"{100 * np.median(look.moves):.2f} %" if look.moves.size else ""
        rows.append(
            f"<tr><td class=clip>{html.escape(look.name)}{warned}</td>"
            f"<td><div class=strip>{strip}</div></td><td class=n>{look.frames}</td>"
            f"<td class=n>{look.width}&thinsp;x&thinsp;{look.height}</td><td class=n>{median}</td>"
            f"<td>{_sparkline(look.moves)}</td></tr>"
        )
    head = (
        "<tr><th>clip</th><th></th><th class=n>frames</th><th class=n>size</th><th class=n>motion</th>"
        "<th>along the clip</th></tr>"
    )
    return f"<div class=scroll><table>{head}{''.join(rows)}</table></div>"


def _sparkline(values: np.ndarray, width: int = 100, height: int = 28) -> str:
    if values.size < 2:
        return ""
    top = max(float(values.max()), 1e-4)
    points = " ".join(
        f"{width * i / (len(values) - 1):.1f},{height - 2 - (height - 4) * value / top:.1f}"
        for i, value in enumerate(values)
    )
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="motion per frame, at most '
        f'{100 * top:.1f} percent"><polyline points="{points}" fill="none" stroke="currentColor"/></svg>'
    )


def _left_out(rejected: Sequence[tuple[str, str]], replaced: Counter[str]) -> str:
    more = max(0, len(rejected) - _MOST_REJECTED)
    body = "".join(
        f"<tr><td class=what>{html.escape(name)}</td><td>{html.escape(reason)}</td></tr>"
        for name, reason in rejected[:_MOST_REJECTED]
    )
    body += "".join(
        f"<tr><td>samples drawn anew</td><td>{html.escape(reason)} ({count} times)</td></tr>"
        for reason, count in replaced.most_common(20)
    )
    tail = f"<p>and {more} more</p>" if more else ""
    return f"<div class=scroll><table>{body}</table></div>{tail}" if body else "<p>Nothing.</p>"


def _data(image: np.ndarray) -> str:
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
