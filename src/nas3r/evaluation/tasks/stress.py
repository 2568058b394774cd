"""Pose and rendering quality on synthetic worlds, one difficulty at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nas3r.data.posed import PosedScene
from nas3r.data.synthetic import SyntheticScenes
from nas3r.evaluation.inference import Inference
from nas3r.evaluation.pose import summarise
from nas3r.evaluation.provenance import Provenance
from nas3r.evaluation.report import Album, Chart, Column, Series, Table, line_chart
from nas3r.evaluation.report.page import Gallery, Page, write_page
from nas3r.evaluation.runner import Record
from nas3r.evaluation.storage import open_folder, plain, read_json, write_json
from nas3r.evaluation.tasks.novel_views import NovelViews, scene_mean
from nas3r.evaluation.tasks.pose_tables import methods, pooled
from nas3r.evaluation.tasks.poses import Poses
from nas3r.evaluation.tasks.stress_factors import FACTORS, Factor
from nas3r.io.atomic import atomic_path

TITLE = "Stress tests on synthetic worlds"
_AUC_AT = 20.0  # degrees


@dataclass(frozen=True)
class StressSettings:
    """What decides the numbers.

    Attributes:
        factors: Names of `FACTORS`.
        scenes: Worlds per level; the same seeds at every level.
        seed: Of the worlds.
        size: Side of the square images in pixels.
        sift: Whether to run SIFT with the true intrinsics beside the model.
    """

    factors: tuple[str, ...] = tuple(FACTORS)
    scenes: int = 24
    seed: int = 0
    size: int = 64
    sift: bool = True

    def __post_init__(self) -> None:
        unknown = [f for f in self.factors if f not in FACTORS]
        if unknown or not self.factors or self.scenes < 1:
            raise ValueError(
                f"stress: expected factors of {', '.join(FACTORS)} and scenes >= 1, "
                f"got {list(self.factors)} and {self.scenes}"
            )


def run_stress(
    inference: Inference | None,
    settings: StressSettings,
    provenance: Provenance,
    out: Path,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Runs every level of every factor; writes `results.json`, `results.md` and `report.html`.

    The images that are compared carry the same degradation as those the model sees. Finished scenes are kept:
    run again with the same settings, the rest is done.

    Args:
        inference: The model; None for baselines alone.
        settings: What to run.
        provenance: What the results say about their origin.
        out: Folder, made if missing.
        overwrite: Whether to start anew where other results lie.

    Raises:
        ValueError: If the folder holds results of other settings.
    """
    described = {"task": "stress", "weights": provenance.weights, **plain(vars(settings))}
    parts, pictures = open_folder(out, described, overwrite)
    baselines = ("identity", "sift") if settings.sift else ("identity",)
    pose_task = Poses(inference, settings.size, baselines=baselines, outer_only=True, pnp=False)
    view_task = NovelViews(inference, settings.size)
    points = [(name, level) for name in settings.factors for level in FACTORS[name].levels]
    records: dict[tuple[str, float], list[Record]] = {}
    with tqdm(total=len(points) * settings.scenes, desc="stress", unit="scene", disable=None) as bar:
        for name, level in points:
            source = SyntheticScenes(settings.seed, FACTORS[name].config(level), settings.scenes)
            for number in range(settings.scenes):
                part = parts / f"{name}-{level:g}-{number:04d}.json"
                record = read_json(part)
                if record is None:
                    album = Album(pictures, part.stem, enabled=number == 0)
                    record = _run_scene(pose_task, view_task, FACTORS[name], level, source[number], album)
                    write_json(part, record)
                if record["pose"]:
                    records.setdefault((name, level), []).append(record)
                bar.update()
    return _write(settings, provenance, described, records, out, pictures)


def _run_scene(
    pose_task: Poses, view_task: NovelViews, factor: Factor, level: float, scene: PosedScene, album: Album
) -> Record:
    """Pose and view errors of one scene; empty if it has no suitable views."""
    view_set = factor.view_set(scene, level)
    if view_set is None:
        return {"scene": scene.name, "pose": {}, "views": {}, "pictures": []}
    silent = Album(album.folder, album.stem, enabled=False)
    pose = pose_task.run(scene, view_set, silent)
    views = view_task.run(scene, view_set, album)
    return plain({"scene": scene.name, "pose": pose, "views": views, "pictures": album.rows})


def _figures(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Figures of every method at one level."""
    out: dict[str, dict[str, float]] = {}
    poses = [{"scene": r["scene"], "result": r["pose"]} for r in records]
    for method in methods(poses):
        summary = summarise(pooled(poses, method), (_AUC_AT,))
        keys = {"R": "rotation_median", "t": "translation_median", "AUC": f"pose_auc@{_AUC_AT:g}"}
        out[method] = {name: summary[key] for name, key in keys.items() if key in summary}
    views = [{"scene": r["scene"], "result": r["views"]} for r in records]
    for method in methods(views):
        for metric in ("psnr", "ssim"):
            value = scene_mean(views, method, metric)
            if value is not None:
                out.setdefault(method, {})[metric] = value
    return out


def _table(
    name: str, factor: Factor, by_level: dict[float, dict[str, dict[str, float]]], counts: Any
) -> Table:
    columns = [
        Column(factor.label),
        Column("method"),
        Column("scenes"),
        Column("R median", 1, "low"),
        Column("t median", 1, "low"),
        Column(f"AUC@{_AUC_AT:g}", 3, "high"),
        Column("PSNR", 2, "high"),
        Column("SSIM", 3, "high"),
    ]
    rows = [
        [
            f"{level:g}",
            method,
            counts[name, level],
            *(values.get(k) for k in ("R", "t", "AUC", "psnr", "ssim")),
        ]
        for level, found in by_level.items()
        for method, values in found.items()
    ]
    return Table(f"Against {factor.label}", columns, rows, group=0)


def _charts(factor: Factor, by_level: dict[float, dict[str, dict[str, float]]]) -> list[Chart]:
    levels = sorted(by_level)
    names = list(dict.fromkeys(method for found in by_level.values() for method in found))
    charts = []
    for key, label, bounds in (
        ("AUC", f"pose AUC@{_AUC_AT:g}", (0.0, 1.0)),
        ("R", "rotation error, median (degrees)", None),
        ("t", "direction error, median (degrees)", (0.0, 180.0)),
        ("psnr", "PSNR (dB)", None),
    ):
        series = [Series(m, levels, [by_level[x].get(m, {}).get(key) for x in levels]) for m in names]
        series = [s for s in series if any(y is not None for y in s.y)]
        if series:
            title = f"{label} against {factor.label}"
            charts.append(line_chart(title, factor.label, label, series, y_range=bounds, markers=True))
    return charts


def _write(
    settings: StressSettings,
    provenance: Provenance,
    described: dict[str, Any],
    records: dict[tuple[str, float], list[Record]],
    out: Path,
    pictures: Path,
) -> dict[str, Any]:
    tables, charts, galleries, figures = [], [], [], {}
    counts = {point: len(found) for point, found in records.items()}
    for name in settings.factors:
        factor = FACTORS[name]
        by_level = {x: _figures(records[name, x]) for x in factor.levels if (name, x) in records}
        if not by_level:
            continue
        figures[name] = {f"{level:g}": found for level, found in by_level.items()}
        tables.append(_table(name, factor, by_level, counts))
        charts += _charts(factor, by_level)
        rows = [row for x in by_level for r in records[name, x][:1] for row in r["pictures"][:2]]
        galleries.append(Gallery(f"{factor.label}: first world at each level", rows))
    results = {**provenance.to_dict(), "settings": described, "figures": figures}
    write_json(out / "results.json", results)
    weights = " ".join(f"{k} {v}" for k, v in provenance.weights.items()) or "none"
    facts = [
        ("command", provenance.command),
        ("weights", weights),
        ("worlds", f"{settings.scenes} a level, seed {settings.seed}, {settings.size} x {settings.size} px"),
        ("nas3r", f"{provenance.version} on {provenance.hardware}"),
    ]
    lines = [f"# {TITLE}", "", *(f"* {key}: {text}" for key, text in facts), ""]
    lines += [table.markdown() for table in tables]
    with atomic_path(out / "results.md") as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    write_page(
        out / "report.html", Page(TITLE, facts, tables, charts, galleries, [], charts_first=True), pictures
    )
    return results
