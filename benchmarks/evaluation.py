"""Runs everything behind the tables of docs/results.md by `nas3r evaluate`, and writes that file.

    python benchmarks/evaluation.py DATA_FOLDER                   # the shipped weights, at their own size
    python benchmarks/evaluation.py DATA_FOLDER --weights FILE

DATA_FOLDER holds the data sets named below, by these names. A slim copy of each result (command, settings,
view indices, tables, commit, hardware) goes to benchmarks/results/evaluation.json, the stress curves to
docs/images/stress.svg; `evaluation_page.py` makes both files. Baselines on full-size images do not depend
on the weights: they are taken over from that file unless --fresh. With --work FOLDER the pages with pictures
are kept there, and what is finished is not run again (for other weights take another folder).
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from evaluation_page import Result, document, stress_curves
from origin import commit

from nas3r.evaluation.tasks.stress_factors import FACTORS
from nas3r.io.atomic import atomic_path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "evaluation.json"
PAGE = ROOT / "docs" / "results.md"
CURVES = ROOT / "docs" / "images" / "stress.svg"

PHOTOS = ("fox", "phone_eunseon02", "bonsai_mipnerf360", "7scenes_redkitchen")
STEREO = "middlebury_2001_2006"
# How cameras stand to each other, and what happens to the images.
STRESS_FACTORS = (("baseline", "overlap", "views"), tuple(FACTORS)[3:])


@dataclass(frozen=True)
class Run:
    """One `nas3r evaluate` command.

    Attributes:
        part: Table it belongs to.
        arguments: After `nas3r evaluate`.
    """

    part: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        data = self.arguments[2] if self.part == "stress" else self.arguments[1]
        return f"{self.part}-{data}"

    @property
    def words(self) -> list[str]:
        """The command line."""
        return ["nas3r", "evaluate", *self.arguments, "-o", self.name]

    @property
    def needs_no_model(self) -> bool:
        """Whether the result is the same for all weights."""
        return self.part.endswith("-full")


def plan(model: Sequence[str], stress_scenes: int) -> list[Run]:
    """Every command; `model` are the options that name weights and size. The slowest come first."""
    full = ("--weights", "none", "--size", "32")  # the size is only that of the pictures
    six = ("--views", "6", "--sets-per-class", "4")
    runs = [
        Run("stress", ("stress", "--factors", *factors, "--scenes", str(stress_scenes), *model))
        for factors in STRESS_FACTORS
    ]
    for name in PHOTOS:
        runs += [
            Run("six-full", ("pose", name, *six, *full, "--baselines", "colmap-full")),
            Run("pose-full", ("pose", name, *full, "--baselines", "sift-full")),
            Run(
                "aligned", ("nvs", name, "--align", "pose", "--targets", "1", "--sets-per-class", "4", *model)
            ),
            Run("six", ("pose", name, *six, *model, "--baselines", "identity", "sift", "colmap")),
            Run("pose", ("pose", name, *model)),
            Run("nvs", ("nvs", name, *model)),
            Run("nvs-six", ("nvs", name, *six, *model)),
        ]
    runs.append(Run("stereo", ("pose", STEREO, *model)))
    runs += [Run("depth", ("depth", name, *model)) for name in ("7scenes_redkitchen", STEREO)]
    runs.append(Run("depth-six", ("depth", "7scenes_redkitchen", *six, *model)))
    return runs


def execute(run: Run, work: Path) -> Result:
    """Runs a command in one thread; returns what is kept of its result.

    Raises:
        RuntimeError: If it fails; with what it said.
    """
    finished = work / run.name / "results.json"
    if finished.is_file():
        return slim(run, json.loads(finished.read_text()))
    start = time.monotonic()
    command = [sys.executable, "-m", "nas3r.cli.main", *run.words[1:], "--threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(run.words)}: {done.stderr.strip().splitlines()[-1]}")
    print(f"{time.monotonic() - start:6.0f} s  {shlex.join(run.words)}", flush=True)
    return slim(run, json.loads(finished.read_text()))


def slim(run: Run, results: Result) -> Result:
    """What is kept of a result: everything but the figures of every single view set."""
    views = [
        {key: record[key] for key in ("scene", "context", "targets", "overlap", "tag")}
        for record in results.pop("records", [])
    ]
    return {"part": run.part, "name": run.name, **results, "commit": commit(), "views": views}


def earlier_results() -> dict[tuple[str, ...], Result]:
    """Those of the last time, by the words of their command in alphabetical order."""
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    return {tuple(sorted(shlex.split(result["command"]))): result for result in found}


def run_all(runs: Sequence[Run], data: Path, work: Path, jobs: int, fresh: bool) -> list[Result]:
    """Results of all runs, several at a time, in the order of the plan."""
    work.mkdir(parents=True, exist_ok=True)
    for name in (*PHOTOS, STEREO):
        if not (work / name).exists():
            (work / name).symlink_to((data / name).resolve())
    earlier = {} if fresh else earlier_results()

    def result_of(run: Run) -> Result:
        if run.needs_no_model and (known := earlier.get(tuple(sorted(run.words)))) is not None:
            return known
        return execute(run, work)

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(result_of, runs))


def write_json(results: Sequence[Result]) -> None:
    """One result a line: diffs stay readable and the file small."""
    with atomic_path(RESULTS) as temporary:
        temporary.write_text("[\n" + ",\n".join(json.dumps(r) for r in results) + "\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", help="default: the shipped ones")
    parser.add_argument("--size", help="default: what the weights were made for")
    parser.add_argument("--stress-scenes", type=int, default=12)
    parser.add_argument("--work", type=Path, help="default: a temporary folder")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="also run what does not depend on the weights")
    options = parser.parse_args()
    model: list[str] = []
    if options.weights:
        path = Path(options.weights)
        model += ["--weights", str(path.resolve()) if path.is_file() else options.weights]
    model += ["--size", options.size] if options.size else []
    work = options.work or Path(tempfile.mkdtemp(prefix="nas3r-evaluation-"))
    results = run_all(plan(model, options.stress_scenes), options.data, work, options.jobs, options.fresh)
    words = ["python", "benchmarks/evaluation.py", "DATA_FOLDER", *model]
    write_json(results)
    with atomic_path(PAGE) as temporary:
        temporary.write_text(document(results, shlex.join(words)), encoding="utf-8")
    with atomic_path(CURVES) as temporary:
        temporary.write_text(stress_curves([r for r in results if r["part"] == "stress"]))
    if options.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
