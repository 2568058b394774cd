"""Finds the evaluations that the data allow, runs them, and sets ours beside the published figures."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nas3r.data.posed_sources import open_posed
from nas3r.evaluation.inference import Inference
from nas3r.evaluation.planning import Selection
from nas3r.evaluation.pose import summarise
from nas3r.evaluation.provenance import Provenance
from nas3r.evaluation.report import Column, Table
from nas3r.evaluation.runner import Record, Task, evaluate
from nas3r.evaluation.storage import write_json
from nas3r.evaluation.suite.evaluations import Evaluation, evaluations
from nas3r.evaluation.suite.published import look_up, row_of, source_texts
from nas3r.evaluation.tasks.depths import Depths
from nas3r.evaluation.tasks.novel_views import NovelViews, Perceptual, scene_mean, tags_present
from nas3r.evaluation.tasks.pose_tables import pooled
from nas3r.evaluation.tasks.poses import LAST_TARGET, Poses
from nas3r.io.atomic import write_text
from nas3r.models import NAS3R

logger = logging.getLogger(__name__)

RESULTS, PAGE = "suite.json", "suite.md"
_AUCS = (5, 10, 20)
_DEPTH_SETS = 64  # view sets over all scenes of the depth evaluation


@dataclass(frozen=True)
class SuiteOptions:
    """What is run.

    Attributes:
        views: Numbers of context views.
        only: Names of evaluations; empty for all that the data allow.
        max_scenes: Only the first so many scenes of each data set; then figures are not the published ones.
        size: Side of the square images in pixels; None for that of the model.
        pictures: View sets with pictures in each report.
    """

    views: tuple[int, ...] = (2, 10)
    only: tuple[str, ...] = ()
    max_scenes: int | None = None
    size: int | None = None
    pictures: int = 12


@dataclass(frozen=True)
class Cell:
    """One figure of ours beside the published one.

    Attributes:
        evaluation: Name.
        row: Name of the published weights it is compared with.
        overlap: Overlap class, or "all".
        figure: What was measured.
        ours: None if it was not measured.
        paper: The paper's figure, None where it is not known.
        third_party: What others measured with the published weights, None where it is not known.
        scenes: Number of scenes that ours is the mean over.
    """

    evaluation: str
    row: str
    overlap: str
    figure: str
    ours: float | None
    paper: float | None
    third_party: float | None
    scenes: int


@dataclass(frozen=True)
class Suite:
    """What became of all evaluations.

    Attributes:
        cells: Of those that were run.
        not_run: Why the others were not.
    """

    cells: tuple[Cell, ...]
    not_run: dict[str, str]

    def table(self) -> Table:
        """Ours beside the published figures."""
        columns = [
            Column("evaluation"), Column("overlap"), Column("figure"), Column("ours", 3), Column("paper", 3),
            Column("third party", 3), Column("compared with"), Column("scenes"),
        ]  # fmt: skip
        rows = [
            [c.evaluation, c.overlap, c.figure, c.ours, c.paper, c.third_party, c.row, c.scenes]
            for c in self.cells
        ]
        notes = [f"{name.replace('_', ' ')}: {text}." for name, text in source_texts().items()]
        note = "A dash: not measured, or not known here. " + " ".join(notes)
        return Table("Ours beside the published figures", columns, rows, note)

    def markdown(self) -> str:
        """The table, and what was not run."""
        text = self.table().markdown() if self.cells else ""
        if self.not_run:
            lines = [f"* {name}: {reason}" for name, reason in self.not_run.items()]
            text += "\n".join(["", f"## Not run: {len(self.not_run)}", "", *lines, ""])
        return text


def run_suite(
    model: NAS3R,
    folder: Path,
    out: Path,
    options: SuiteOptions,
    provenance: Callable[[str], Provenance],
    *,
    weights: str | None = None,
    lpips: Perceptual | None = None,
    overwrite: bool = False,
) -> Suite:
    """Runs every published evaluation whose data lie in a folder; one that fails does not cost the others.

    Each has a folder of its own in `out`, where it goes on if it was interrupted. `suite.json` and `suite.md`
    hold the comparison.

    Args:
        model: In eval mode.
        folder: That holds the data sets, each in a folder of its name, and their indices.
        out: Folder, made if missing.
        options: What to run.
        provenance: What results say about their origin, for the data at a path.
        weights: What the model was loaded from; decides which published row it is compared with.
        lpips: Perceptual distance; None where its weights are not at hand.
        overwrite: Whether to start anew where other results lie.

    Raises:
        ValueError: If an evaluation is asked for that does not exist.
        FileNotFoundError: If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    wanted = evaluations(options.views)
    names = [evaluation.name for evaluation in wanted]
    if unknown := [name for name in options.only if name not in names]:
        raise ValueError(f"{unknown[0]!r}: expected one of {', '.join(names)}")
    cells: list[Cell] = []
    not_run: dict[str, str] = {}
    for evaluation in wanted:
        if options.only and evaluation.name not in options.only:
            continue
        missing = what_is_missing(evaluation, folder)
        if missing is not None:
            not_run[evaluation.name] = missing
            continue
        logger.info("%s", evaluation.title)
        try:
            results = _run(
                evaluation, model, folder, out / evaluation.name, options, provenance, lpips, overwrite
            )
        except (ValueError, OSError) as error:
            logger.warning("%s: %s", evaluation.name, error)
            not_run[evaluation.name] = str(error)
            continue
        cells += _cells(evaluation, results["records"], row_of(weights, evaluation))
    suite = Suite(tuple(cells), not_run)
    write_json(
        out / RESULTS,
        {
            **provenance(str(folder)).to_dict(),
            "options": asdict(options),
            "sources": source_texts(),
            "cells": [asdict(cell) for cell in cells],
            "not_run": not_run,
        },
    )
    write_text(out / PAGE, f"# The published evaluations\n\n{suite.markdown()}")
    return suite


def what_is_missing(evaluation: Evaluation, folder: Path) -> str | None:
    """What an evaluation needs and does not find, with where it comes from; None if it can be run."""
    data_set = evaluation.data_set
    if data_set.folder(folder) is None:
        return (
            f"no folder {data_set.name} in {folder}. {data_set.title} comes from {data_set.origin}. "
            f"Terms: {data_set.terms}."
        )
    if data_set.indexed and data_set.index(folder) is None:
        return (
            f"no {data_set.index_name} in {folder} or beside the data; it comes from {data_set.index_origin}."
        )
    return None


def _run(
    evaluation: Evaluation,
    model: NAS3R,
    folder: Path,
    out: Path,
    options: SuiteOptions,
    provenance: Callable[[str], Provenance],
    lpips: Perceptual | None,
    overwrite: bool,
) -> dict[str, Any]:
    data_set = evaluation.data_set
    data = data_set.folder(folder)
    assert data is not None
    source = open_posed(data)
    selection = Selection(views=evaluation.views, max_scenes=options.max_scenes)
    if data_set.indexed:
        selection = replace(selection, protocol="published", index=data_set.index(folder))
    else:
        per_scene = max(1, _DEPTH_SETS // len(source))
        selection = replace(selection, pairs=True, sets_per_class=per_scene)
    inference = Inference(model, selection.protocol)
    task = _task(evaluation, inference, options.size or model.config.image_size, lpips)
    origin = provenance(str(data))
    return evaluate(task, source, selection, origin, out, pictures=options.pictures, overwrite=overwrite)


def _task(evaluation: Evaluation, inference: Inference, size: int, lpips: Perceptual | None) -> Task:
    match evaluation.task:
        case "nvs":
            return NovelViews(inference, size, lpips=lpips)
        case "pose":
            return Poses(inference, size, baselines=("identity",), published=True, pnp=False)
        case "depth":
            return Depths(inference, size)


def _cells(evaluation: Evaluation, records: Sequence[Record], row: str) -> list[Cell]:
    """All figures of an evaluation, over all overlap classes and by class."""
    tags = tags_present(records)
    cells = []
    for tag in ("all", *(tags if len(tags) > 1 else ())):
        chosen = [record for record in records if tag in ("all", record["tag"])]
        for figure, value in _figures(evaluation, chosen).items():
            paper, others = (
                look_up(row, evaluation.name, tag, figure, source) for source in ("paper", "third_party")
            )
            scenes = len({record["scene"] for record in chosen})
            cells.append(Cell(evaluation.name, row, tag, figure, value, paper, others, scenes))
    return cells


def _figures(evaluation: Evaluation, records: Sequence[Record]) -> dict[str, float | None]:
    match evaluation.task:
        case "nvs":
            keys = {"PSNR": "psnr", "SSIM": "ssim", "LPIPS": "lpips"}
            return {figure: scene_mean(records, "nas3r", key) for figure, key in keys.items()}
        case "pose":
            # The published context poses are those of the pass with the last target.
            summary = summarise(pooled(records, LAST_TARGET), _AUCS)
            return {f"AUC@{t}": summary.get(f"pose_folded_auc@{t}") for t in _AUCS}
        case "depth":
            keys = {"abs rel": "median/abs_rel", "τ": "median/tau"}
            return {figure: scene_mean(records, "nas3r", key) for figure, key in keys.items()}
