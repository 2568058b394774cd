"""docs/results.md and its stress curves, from the results that `evaluation.py` keeps."""

from collections.abc import Callable, Sequence
from typing import Any

from nas3r.evaluation.report import Series, line_chart
from nas3r.evaluation.report.charts import HEIGHT, WIDTH
from nas3r.evaluation.tasks.poses import GIVEN
from nas3r.evaluation.tasks.stress_factors import FACTORS

Result = dict[str, Any]

CLASSES = ("small", "medium", "large", "very large")

SIFT = "SIFT + MAGSAC, true K"
POSE = {"no answer": (0, None), "R median": (1, min), "t median": (1, min)}
AREAS = {f"AUC@{t}": (3, max) for t in (5, 10, 20, 30)}
IMAGES = {"PSNR": (2, max), "SSIM": (3, max)}
DEPTH = {
    "median: abs rel": (3, min),
    "δ<1.25": (3, max),
    "τ": (3, max),
    "Spearman": (3, max),
    "Spearman, mean map removed": (3, max),
}
HEADER = """# Results

Written by `{command}` (some eighty minutes of CPU time). {described} Commit {commit}, {hardware}.
View indices, all overlap classes and alignments: [evaluation.json](../benchmarks/results/evaluation.json).
What each figure means: [evaluation](evaluation.md). The data sets are small and were looked at during
development: differences of a few hundredths in AUC or a few tenths of a decibel are noise. LPIPS is missing
because its VGG weights could not be had where this was run; with `--lpips-weights` every table of novel views
has that column.
"""
SUMMARY = (
    "All methods see the same images of {size} x {size} pixels. AUC: area under the recall curve of the "
    "larger of rotation and direction error, direction with its sign; no answer counts as 180 degrees. "
    "PSNR: of images that are not in the context; the network finds the target's pose from the target, as "
    "published."
)
STRESS = (
    "Synthetic worlds, one difficulty at a time, {scenes} worlds a level, the same at every level; the rest "
    "is held at a 60 degree view, a baseline of 0.4 mean depths and 20 degrees of rotation. So few worlds "
    "show trends only: a single pair can move the AUC by a few hundredths."
)


def rows_of(result: Result, tag: str = "all") -> list[dict[str, Any]]:
    """Rows of the first table of a result as dictionaries, those of one overlap class.

    Poses by PnP are left out: where depth is lifted with the predicted pose they repeat it.
    """
    found = result["tables"][0]
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    return [row for row in rows if row["overlap"] == tag and row["method"] != "nas3r, PnP"]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table of cells that are formatted already."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(" --- " for _ in head) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def number(value: float | None, digits: int) -> str:
    """A formatted number, a dash if there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def bold_best(rows: list[list[str]], column: int, better: Callable[..., str]) -> None:
    """Sets the best value of each data set in bold; full-size baselines do not compete."""
    for name in {row[0] for row in rows}:
        group = [r for r in rows if r[0] == name and "full size" not in r[1] and r[column] != "–"]
        if len({r[column] for r in group}) > 1:
            best = better((r[column] for r in group), key=float)
            for row in group:
                if row[column] == best:
                    row[column] = f"**{best}**"


def section(results: list[Result], title: str, intro: str, columns: dict[str, tuple[int, Any]]) -> str:
    """A heading, a table with a row per data set and method, and the commands behind it.

    Args:
        results: Those of one data set one after the other.
        title: Heading.
        intro: Text above the table.
        columns: Name in the result to number of digits and which end is better (`min`, `max` or None).
    """
    rows = []
    for result in sorted(results, key=lambda r: [x["data"] for x in results].index(r["data"])):
        for row in rows_of(result):
            count = row.get("pairs", row.get("view sets"))
            cells = [number(row.get(c), digits) for c, (digits, _) in columns.items()]
            rows.append([result["data"], row["method"], str(count), *cells])
    for place, (_, better) in enumerate(columns.values()):
        if better is not None:
            bold_best(rows, 3 + place, better)
    counted = "pairs" if "pairs" in results[0]["tables"][0]["columns"] else "view sets"
    table = markdown_table(["data", "method", counted, *columns], rows)
    return f"## {title}\n\n{intro}\n\n{table}\n{commands(results)}"


def commands(results: Sequence[Result]) -> str:
    """The commands behind a table, as a block of code."""
    return "```sh\n" + "\n".join(r["command"] for r in results) + "\n```\n"


def summary(parts: dict[str, list[Result]]) -> str:
    """What matters most, in one table: poses and novel views of real pairs at the model's own size."""
    rows = []
    for pose, views in zip(parts["pose"], parts["nvs"], strict=True):
        psnr = {row["method"]: row["PSNR"] for row in rows_of(views)}
        for row in rows_of(pose):
            areas = [number(row[f"AUC@{t}"], 3) for t in (5, 10, 20)]
            rows.append([pose["data"], row["method"], *areas, number(psnr.pop(row["method"], None), 2)])
        rows += [[pose["data"], method, "–", "–", "–", number(value, 2)] for method, value in psnr.items()]
    for column in range(2, 6):
        bold_best(rows, column, max)
    head = ["data", "method", "AUC@5", "AUC@10", "AUC@20", "target PSNR"]
    return f"## In short: two photos of a real scene\n\n{SUMMARY}\n\n{markdown_table(head, rows)}"


def classes_section(results: Sequence[Result]) -> str:
    """AUC@20 of two-view poses by overlap class."""
    rows = []
    for result in results:
        by_tag = {tag: {row["method"]: row for row in rows_of(result, tag=tag)} for tag in CLASSES}
        for method in dict.fromkeys(m for found in by_tag.values() for m in found):
            cells = [number(by_tag[tag].get(method, {}).get("AUC@20"), 3) for tag in CLASSES]
            rows.append([result["data"], method, *cells])
    table = markdown_table(["data", "method", *CLASSES], rows)
    return f"## Pose of two views, by overlap\n\nStrict AUC@20 of the same runs.\n\n{table}"


def stress_figures(results: Sequence[Result]) -> dict[str, Any]:
    """Of all difficulties."""
    return {name: levels for result in results for name, levels in result["figures"].items()}


def stress_section(results: Sequence[Result]) -> str:
    """The stress curves and the figures at both ends of each."""
    rows = []
    for name, levels in stress_figures(results).items():
        for level in (min(levels, key=float), max(levels, key=float)):
            found = levels[level]
            cells = [number(found.get(m, {}).get("AUC"), 3) for m in ("nas3r", SIFT)]
            cells += [number(found.get(m, {}).get("psnr"), 2) for m in ("nas3r", "nearest context")]
            rows.append([FACTORS[name].label, level, *cells])
    head = ["difficulty", "level", "AUC@20", "SIFT, true K", "PSNR", "nearest context"]
    return (
        f"## Stress\n\n{STRESS}\n\n"
        "![Pose and rendering quality against nine difficulties](images/stress.svg)\n\n"
        f"The first and the last level of each:\n\n{markdown_table(head, rows)}\n{commands(results)}\n"
        f"Commits: {', '.join(result['commit'][:12] for result in results)}.\n"
    )


def stress_curves(results: Sequence[Result]) -> str:
    """AUC and PSNR against every difficulty, as one SVG."""
    difficulties = stress_figures(results)
    levels_of = difficulties.values()
    figures = [values for levels in levels_of for found in levels.values() for values in found.values()]
    top = max(0.1, *(values.get("AUC") or 0.0 for values in figures))
    cells = []
    for name, levels in difficulties.items():
        x = [float(level) for level in levels]
        for key, label, bounds in (("AUC", "pose AUC@20", (0.0, top)), ("psnr", "PSNR (dB)", None)):
            methods = dict.fromkeys(m for found in levels.values() for m, v in found.items() if key in v)
            # Not measured for all difficulties: last, so that the others have the same colours everywhere.
            methods = sorted(methods, key=lambda method: method == GIVEN)
            series = [Series(m, x, [found.get(m, {}).get(key) for found in levels.values()]) for m in methods]
            cells.append(
                line_chart(
                    f"{label}, {name}", FACTORS[name].label, label, series, y_range=bounds, markers=True
                )
            )
    width, height, across = WIDTH + 20, HEIGHT + 60, 4
    placed = [
        chart.svg.replace("<svg ", f'<svg x="{k % across * width}" y="{k // across * height}" ', 1)
        for k, chart in enumerate(cells)
    ]
    total = across * width, -(-len(cells) // across) * height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total[0]} {total[1]}" width="{total[0]}" '
        f'height="{total[1]}"><rect width="100%" height="100%" fill="white"/>{"".join(placed)}</svg>\n'
    )


def document(results: list[Result], command: str) -> str:
    """docs/results.md."""
    parts: dict[str, list[Result]] = {}
    for result in results:
        parts.setdefault(result["part"], []).append(result)
    first, stress = parts["nvs"][0], parts["stress"]
    weights = first["weights"]
    described = f"Weights: {weights['name']}, SHA-256 of the tensors {weights['sha256'][:16]}."
    text = "\n".join(
        [
            HEADER,
            summary(parts),
            section(
                parts["nvs"],
                "Novel views, two context views",
                "Mean over three targets, then view sets.",
                IMAGES,
            ),
            section(
                parts["nvs-six"],
                "Novel views, six context views",
                "Mean over three targets, then view sets of all overlap classes.",
                IMAGES,
            ),
            section(
                parts["aligned"],
                "Novel views after aligning the target's pose",
                "Fewer view sets, one target each: the middle one. The pose of the target is moved until the "
                "rendering fits; the difference of the first two rows is what the predicted pose costs.",
                IMAGES,
            ),
            section(
                parts["pose"] + parts["pose-full"],
                "Pose of two views",
                "Errors in degrees; PnP from the predicted points gives the same poses and is left out. Rows "
                "that say full size see the same part of the scene at the full resolution of the data (up to "
                "640 px) and are not compared with the others.",
                {**POSE, **AREAS, "focal %": (1, min)},
            ),
            classes_section(parts["pose"]),
            section(
                parts["six"] + parts["six-full"],
                "Pose of six views",
                "All fifteen pairs of each view set; ATE is relative to the spread of the true cameras.",
                {**POSE, **AREAS, "ATE": (3, min)},
            ),
            section(
                parts["stereo"],
                "Rectified stereo",
                "There is no rotation between these views: the identity is perfect in R.",
                {**POSE, "AUC@5": (3, max), "AUC@10": (3, max), "AUC@20": (3, max)},
            ),
            section(
                parts["depth"],
                "Depth, two context views",
                "After median alignment (stereo scenes without a known disparity offset count in the rank "
                "columns only). The last column is the rank correlation that is left once the mean depth "
                "map is removed.",
                DEPTH,
            ),
            section(parts["depth-six"], "Depth, six context views", "Likewise.", DEPTH),
            stress_section(stress),
        ]
    )
    values = {
        "{command}": command,
        "{described}": described,
        "{commit}": first["commit"][:12],
        "{hardware}": first["hardware"],
        "{size}": str(first["settings"]["size"]),
        "{scenes}": str(stress[0]["settings"]["scenes"]),
    }
    for name, value in values.items():
        text = text.replace(name, value)
    return text
