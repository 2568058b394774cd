"""Runs the evaluations of docs/results.md on the development data and writes that file.

    python benchmarks/evaluation.py DATA_FOLDER [--weights FILE] [--sizes 64 128] [--work FOLDER]

DATA_FOLDER holds the data sets named below. Every table comes from a `nas3r evaluate` command that is
printed with it; finished ones are not run again. Without --weights the tables hold the baselines alone. A
slim copy of each result (command, settings, view indices, tables, commit, hardware) goes to
benchmarks/results/evaluation.json.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from nas3r.cli.main import main as nas3r
from nas3r.io.atomic import atomic_path

ROOT = Path(__file__).parents[1]
PHOTOS = ("fox", "phone_eunseon02", "bonsai_mipnerf360", "7scenes_redkitchen")
DEPTHS = ("7scenes_redkitchen", "middlebury_2001_2006")


def commands(weights: str, sizes: list[int]) -> list[list[str]]:
    """Arguments of every `nas3r` command, with paths relative to the working folder."""
    runs = []
    for size in sizes:
        common = ["--weights", weights, "--size", str(size)]
        for name in PHOTOS:
            align = [] if weights == "none" else ["--align", "pose"]
            runs.append(["nvs", f"data/{name}", *common, *align])
            runs.append(
                [
                    "pose",
                    f"data/{name}",
                    *common,
                    "--baselines",
                    "identity",
                    "sift",
                    "sift-guess",
                    "sift-full",
                ]
            )
            many = [
                "--views",
                "6",
                "--sets-per-class",
                "4",
                "--baselines",
                "identity",
                "sift",
                "colmap",
                "colmap-full",
            ]
            runs.append(["pose", f"data/{name}", *common, *many])
        runs.append(["pose", "data/middlebury_2001_2006", *common])
        runs += [["depth", f"data/{name}", *common] for name in DEPTHS]
    for run in runs:
        views = run[run.index("--views") + 1] if "--views" in run else "2"
        size = run[run.index("--size") + 1]
        run += ["-o", f"out/{run[0]}-{Path(run[1]).name}-{views}-{size}"]
    return [["evaluate", *run] for run in runs]


def slim(folder: Path, commit: str) -> dict[str, Any]:
    """What is kept of a result."""
    results = json.loads((folder / "results.json").read_text())
    views = [
        {k: r[k] for k in ("scene", "context", "targets", "overlap", "tag")} for r in results.pop("records")
    ]
    return {**results, "commit": commit, "views": views}


def write_json(path: Path, results: list[dict[str, Any]]) -> None:
    """One result a line: diffs stay readable and the file small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(json.dumps(r) for r in results) + "\n]\n")


def table_rows(result: dict[str, Any], number: int, tag: str = "all") -> list[dict[str, Any]]:
    """Rows of one table of a result as dictionaries, those of one overlap class."""
    table = result["tables"][number]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    return [row for row in rows if row["overlap"] == tag]


def label(result: dict[str, Any]) -> tuple[str, int, int]:
    """Data set, image size and number of context views."""
    settings = result["settings"]
    return Path(result["data"]).name, settings["size"], settings["selection"]["views"] or 2


def markdown_table(head: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; numbers are formatted already."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(" --- " for _ in head) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def number(value: float | None, digits: int) -> str:
    """A formatted number, a dash if there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def section(
    results: list[dict[str, Any]], title: str, intro: str, columns: dict[str, int], table: int
) -> str:
    """A heading, a table with a row per data set, size and method, and the commands behind it."""
    rows = []
    for result in results:
        name, size, _ = label(result)
        for row in table_rows(result, table):
            count = row.get("pairs", row.get("view sets"))
            rows.append(
                [name, size, row["method"], count, *(number(row.get(c), d) for c, d in columns.items())]
            )
    head = ["data", "px", "method", "sets or pairs", *columns]
    listed = "\n".join(f"    {r['command']}" for r in results)
    return f"## {title}\n\n{intro}\n\n{markdown_table(head, rows)}\nCommands:\n\n{listed}\n"


def classes_section(results: list[dict[str, Any]]) -> str:
    """AUC@20 of two-view poses by overlap class."""
    tags = ("small", "medium", "large", "very large")
    rows = []
    for result in results:
        name, size, _ = label(result)
        by_tag = {tag: {row["method"]: row for row in table_rows(result, 0, tag)} for tag in tags}
        for method in dict.fromkeys(m for found in by_tag.values() for m in found):
            cells = [number(by_tag[tag].get(method, {}).get("AUC@20"), 3) for tag in tags]
            rows.append([name, size, method, *cells])
    text = "Strict AUC@20 of the same runs, by overlap of the two views."
    table = markdown_table(["data", "px", "method", *tags], rows)
    return f"## Pose of two views, by overlap\n\n{text}\n\n{table}"


def document(results: list[dict[str, Any]], weights: str) -> str:
    """docs/results.md."""
    by_task = {
        task: [r for r in results if r["settings"]["task"] == task] for task in ("nvs", "pose", "depth")
    }
    two = [r for r in by_task["pose"] if label(r)[2] == 2]
    many = [r for r in by_task["pose"] if label(r)[2] > 2]
    photos = [r for r in two if "middlebury" not in r["data"]]
    stereo = [r for r in two if "middlebury" in r["data"]]
    command = shlex.join(["python", "benchmarks/evaluation.py", "DATA_FOLDER", "--weights", weights])
    origin = results[0]
    described = " ".join(origin["weights"].values()) or "none: baselines alone"
    return "\n".join(
        [
            "# Results\n",
            f"Written by `{command}`. Weights: {described}. Commit {origin['commit'][:12]}, "
            f"{origin['hardware']}. View indices and the tables by overlap class: "
            "[benchmarks/results/evaluation.json](../benchmarks/results/evaluation.json). How each figure is "
            "defined: [evaluation.md](evaluation.md). Image sets are small: differences of a few hundredths "
            "in AUC, or of a few tenths of a decibel, are noise.\n",
            section(
                by_task["nvs"],
                "Novel views, two context views",
                "Mean over targets, view sets and scenes. LPIPS needs VGG weights and was not measured.",
                {"PSNR": 2, "SSIM": 3},
                0,
            ),
            section(
                photos,
                "Pose of two views",
                "Errors in degrees; AUC of the larger of rotation and direction error, direction with its "
                "sign. No answer counts as 180 degrees. The last row of each block sees full-size images.",
                {
                    "no answer": 0,
                    "R median": 1,
                    "t median": 1,
                    "AUC@5": 3,
                    "AUC@10": 3,
                    "AUC@20": 3,
                    "AUC@30": 3,
                    "focal %": 1,
                },
                0,
            ),
            classes_section(photos),
            section(
                many,
                "Pose of six views",
                "All fifteen pairs of each view set; ATE is relative to the spread of the true cameras.",
                {
                    "no answer": 0,
                    "R median": 1,
                    "t median": 1,
                    "AUC@5": 3,
                    "AUC@10": 3,
                    "AUC@20": 3,
                    "AUC@30": 3,
                    "ATE": 3,
                },
                0,
            ),
            section(
                stereo,
                "Rectified stereo",
                "There is no rotation between these views: the identity is perfect in R.",
                {"no answer": 0, "R median": 1, "t median": 1, "AUC@10": 3, "AUC@20": 3},
                0,
            ),
            section(
                by_task["depth"],
                "Depth, two context views",
                "After median alignment (stereo scenes without a known disparity offset count in the rank "
                "columns only). The last column is the rank correlation with the mean depth map removed.",
                {"median: abs rel": 3, "δ<1.25": 3, "τ": 3, "Spearman": 3, "Spearman, mean map removed": 3},
                0,
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="none")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--work", type=Path, default=Path("evaluation-work"))
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    options.work.mkdir(parents=True, exist_ok=True)
    link = options.work / "data"
    if not link.exists():
        link.symlink_to(options.data.resolve())
    if options.weights != "none" and Path(options.weights).is_file():
        options.weights = str(Path(options.weights).resolve())
    os.chdir(options.work)
    results = []
    for arguments in commands(options.weights, options.sizes):
        if nas3r(arguments) != 0:
            sys.exit(f"failed: nas3r {shlex.join(arguments)}")
        results.append(slim(Path(arguments[-1]), commit))
    write_json(ROOT / "benchmarks" / "results" / "evaluation.json", results)
    with atomic_path(ROOT / "docs" / "results.md") as temporary:
        temporary.write_text(document(results, options.weights), encoding="utf-8")


if __name__ == "__main__":
    main()
