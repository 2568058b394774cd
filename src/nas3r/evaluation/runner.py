"""Runs a task over a plan: resumable, scene by scene, with damaged scenes counted and named."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from nas3r.data.posed import PosedScene, PosedSource
from nas3r.evaluation.planning import (
    Item,
    Plan,
    Selection,
    Skipped,
    by_scene,
    make_plan,
    positions,
    view_numbers,
)
from nas3r.evaluation.protocols import ViewSet
from nas3r.evaluation.provenance import Provenance
from nas3r.evaluation.report import Album, Chart, Table
from nas3r.evaluation.report.page import Gallery, Page, write_page
from nas3r.evaluation.storage import open_folder, plain, read_json, write_json
from nas3r.io.atomic import atomic_path

logger = logging.getLogger(__name__)

Record = dict[str, Any]


class Task(Protocol):
    """One kind of evaluation."""

    name: str
    title: str
    needs_targets: bool
    needs_depth: bool

    def settings(self) -> dict[str, Any]:
        """What decides the numbers, as plain values; a resumed run must have the same."""
        ...

    def prepare(self, source: PosedSource, items: Sequence[Item]) -> None:
        """Whatever has to be known about the whole data set first."""
        ...

    def run(self, scene: PosedScene, view_set: ViewSet, album: Album) -> Record:
        """Evaluates one view set: plain values, e.g. metrics by method."""
        ...

    def tables(self, records: Sequence[Record]) -> list[Table]:
        """Aggregates."""
        ...

    def charts(self, records: Sequence[Record]) -> list[Chart]:
        """Curves."""
        ...


def evaluate(
    task: Task,
    source: PosedSource,
    selection: Selection,
    provenance: Provenance,
    out: Path,
    *,
    pictures: int = 12,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Evaluates, writes `results.json`, `results.md` and `report.html` in a folder, and returns the results.

    Every finished view set is written to `parts/` at once; run again with the same settings, the rest is done
    and the tables come out the same.

    Args:
        task: What to measure.
        source: On what.
        selection: On which views.
        provenance: What the results say about their origin.
        out: Folder, made if missing.
        pictures: Number of view sets with pictures on the page.
        overwrite: Whether to start anew where other results lie.

    Raises:
        ValueError: If the folder holds results of other settings, or nothing could be evaluated.
    """
    settings = {
        "task": task.name,
        "data": provenance.data,
        "weights": provenance.weights,
        "selection": selection.to_dict(),
        **task.settings(),
    }
    parts, album_folder = open_folder(out, settings, overwrite)
    plan = make_plan(source, selection, needs_targets=task.needs_targets, needs_depth=task.needs_depth)
    task.prepare(source, plan.items)
    records, skipped = _run_all(task, source, plan, parts, album_folder, pictures)
    if not records:
        raise ValueError(f"no view set could be evaluated: {'; '.join(map(str, skipped[:3]))}")
    tables = task.tables(records)
    results = {
        **provenance.to_dict(),
        "settings": settings,
        "scenes": len({r["scene"] for r in records}),
        "view_sets": len(records),
        "skipped": [{"scene": s.scene, "reason": s.reason} for s in skipped],
        "not_in_index": plan.not_in_index,
        "tables": [t.to_dict() for t in tables],
        "records": records,
    }
    _write_results(task, results, tables, records, skipped, out, album_folder)
    return results


def _run_all(
    task: Task, source: PosedSource, plan: Plan, parts: Path, folder: Path, pictures: int
) -> tuple[list[Record], list[Skipped]]:
    total = len(plan.items)
    shown = (
        {int((k + 0.5) * total / pictures) for k in range(pictures)}
        if total > pictures
        else set(range(total))
    )
    records: dict[int, Record] = {}
    skipped = list(plan.skipped)
    with tqdm(total=total, desc=task.name, unit="set", disable=None) as bar:
        for scene_number, items in by_scene(plan.items):
            missing = []
            for place, item in items:
                part = read_json(parts / f"{place:06d}.json")
                if isinstance(part, dict):
                    records[place] = part
                    bar.update()
                else:
                    missing.append((place, item))
            if not missing:
                continue
            try:
                scene = source[scene_number]
            except (ValueError, OSError) as error:
                logger.warning("skipping %s: %s", items[0][1].scene, error)
                skipped.append(Skipped(items[0][1].scene, str(error)))
                bar.update(len(missing))
                continue
            for place, item in missing:
                album = Album(folder, f"{place:06d}", enabled=place in shown)
                try:
                    result = _run_one(task, scene, item, album)
                except (ValueError, OSError) as error:
                    logger.warning("skipping %s, views %s: %s", item.scene, item.view_set.context, error)
                    skipped.append(Skipped(item.scene, f"views {list(item.view_set.context)}: {error}"))
                else:
                    write_json(parts / f"{place:06d}.json", result)
                    records[place] = result
                bar.update()
    done = [records[place] for place in sorted(records)]
    return done, skipped + _broken_views(done)


def _run_one(task: Task, scene: PosedScene, item: Item, album: Album) -> Record:
    """A record names views by their number in the data; the task gets their places in the scene."""
    views, lost = positions(scene, item.view_set)
    numbers = view_numbers(scene)
    named = replace(item.view_set, targets=tuple(numbers[i] for i in views.targets))
    result = task.run(scene, views, album)
    broken = [
        f"view {number} is left out: {reason}" for number, reason in getattr(scene, "left_out", {}).items()
    ]
    record = {"scene": item.scene, **named.to_dict(), "result": result, "pictures": album.rows}
    return plain({**record, "missing": lost, "broken": broken})


def _broken_views(records: Sequence[Record]) -> list[Skipped]:
    """What every scene lacks, and which view sets miss a target for it."""
    broken = {r["scene"]: r.get("broken", []) for r in records}
    found = [Skipped(scene, reason) for scene, reasons in broken.items() for reason in reasons]
    for record in records:
        if record.get("missing"):
            what = f"views {record['context']} are evaluated without: {'; '.join(record['missing'])}"
            found.append(Skipped(record["scene"], what))
    return found


def _write_results(
    task: Task,
    results: dict[str, Any],
    tables: Sequence[Table],
    records: Sequence[Record],
    skipped: Sequence[Skipped],
    out: Path,
    album_folder: Path,
) -> None:
    facts = _facts(results)
    write_json(out / "results.json", results)
    lines = [f"# {task.title}", "", *(f"* {name}: {text}" for name, text in facts), ""]
    lines += [table.markdown() for table in tables]
    if skipped:
        lines += [f"## Left out: {len(skipped)}", "", *(f"* {s}" for s in skipped), ""]
    with atomic_path(out / "results.md") as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    galleries = [Gallery(_caption(r), r["pictures"]) for r in records if r["pictures"]]
    page = Page(task.title, facts, tables, task.charts(records), galleries, [str(s) for s in skipped])
    write_page(out / "report.html", page, album_folder)


def _caption(record: Record) -> str:
    overlap = "" if record["overlap"] is None else f", overlap {record['overlap']:.2f} ({record['tag']})"
    targets = f", targets {record['targets']}" if record["targets"] else ""
    return f"{record['scene']}: context {record['context']}{targets}{overlap}"


def _facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    settings = results["settings"]
    selection = settings["selection"]
    weights = results["weights"]
    chosen = f"index {selection['index']}" if selection["index"] else "views chosen by measured overlap"
    facts = [
        ("command", results["command"]),
        ("data", f"{results['data']}: {results['scenes']} scenes, {results['view_sets']} view sets"),
        ("weights", " ".join(f"{k} {v}" for k, v in weights.items()) or "none"),
        ("protocol", f"{selection['protocol']}, {chosen}, {selection['views'] or 2} context views"),
        ("image size", f"{settings['size']} x {settings['size']}"),
        ("nas3r", f"{results['version']} on {results['hardware']}"),
    ]
    if results["not_in_index"]:
        facts.append(("not in the index", f"{results['not_in_index']} scenes"))
    return facts
