"""Tables and curves of pose errors."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nas3r.evaluation.pose import PoseErrors, recall_curve, summarise
from nas3r.evaluation.report import Cell, Chart, Column, Series, Table, line_chart
from nas3r.evaluation.runner import Record
from nas3r.evaluation.tasks.novel_views import tags_present

_CURVE_END, _CURVE_STEPS = 30.0, 61  # degrees
_THRESHOLDS = (5, 10, 20, 30)  # degrees
_LABELS = (Column("overlap"), Column("method"), Column("pairs"), Column("no answer"))


def methods(records: Sequence[Record]) -> list[str]:
    """Names of the methods that any record has, in order of appearance."""
    return list(dict.fromkeys(name for r in records for name in r["result"]))


def pooled(records: Sequence[Record], method: str) -> PoseErrors:
    """Errors of all pairs of all records that have the method."""

    def column(key: str, missing: float) -> Tensor:
        values: list[float] = []
        for record in records:
            result = record["result"].get(method)
            if result is not None:
                stored = result.get(key, [torch.nan] * len(result["rotation"]))
                values += [missing if v is None else v for v in stored]
        return torch.tensor(values, dtype=torch.float64)

    # JSON has no NaN: a missing direction is a pair without baseline, a missing focal length a failure.
    return PoseErrors(
        column("rotation", 180.0),
        column("translation", torch.nan),
        column("focal", torch.inf),
        column("failed", 0.0).bool(),
    )


def strict_table(records: Sequence[Record], pairs: str) -> Table:
    """What a user gets: rotation, direction with its sign, focal length, trajectory.

    Args:
        records: Of the pose task.
        pairs: Which pairs they hold, in words.
    """
    note = (
        f"Errors in degrees over {pairs}; AUC is the area under the recall curve up to that many degrees "
        "of the larger of rotation and direction error. A method that gives no answer is 180 degrees "
        "wrong. Focal: median relative error in percent. ATE: error of the camera centres after "
        "similarity alignment, relative to their spread, mean over view sets."
    )
    columns = [
        *_LABELS,
        Column("R median", 1, "low"),
        Column("t median", 1, "low"),
        *(Column(f"AUC@{t}", 3, "high") for t in _THRESHOLDS),
        Column("focal %", 1, "low"),
        Column("ATE", 3, "low"),
    ]
    keys = [
        "rotation_median",
        "translation_median",
        *(f"pose_auc@{t}" for t in _THRESHOLDS),
        "focal_median",
        "ate",
    ]
    return Table("Camera pose", columns, _rows(records, keys), note, group=0).compact()


def folded_table(records: Sequence[Record]) -> Table:
    """The figures of the published protocol: directions up to their sign, rotation and direction apart."""
    columns = [*_LABELS, Column("t median", 1, "low")]
    keys = ["translation_folded_median"]
    for name, key in (("R", "rotation"), ("t", "translation_folded"), ("pose", "pose_folded")):
        columns += [Column(f"{name} AUC@{t}", 3, "high") for t in _THRESHOLDS[:3]]
        keys += [f"{key}_auc@{t}" for t in _THRESHOLDS[:3]]
    note = "A flipped translation direction is forgiven. No answer is wrong by 180 degrees in R, 90 in t."
    return Table("Camera pose, direction up to sign", columns, _rows(records, keys), note, group=0)


def _rows(records: Sequence[Record], keys: Sequence[str]) -> list[list[Cell]]:
    """Labels and figures of every overlap class and method."""
    rows: list[list[Cell]] = []
    for tag in ("all", *tags_present(records)):
        chosen = [r for r in records if tag in ("all", r["tag"])]
        for method in methods(chosen):
            errors = pooled(chosen, method)
            summary: dict[str, float] = summarise(errors, _THRESHOLDS)
            ates = [r["result"][method]["ate"] for r in chosen if "ate" in r["result"].get(method, {})]
            if ates:
                summary["ate"] = sum(ates) / len(ates)
            figures = [_finite(summary.get(key)) for key in keys]
            rows.append([tag, method, len(errors.rotation), int(errors.failed.sum()), *figures])
    return rows


def _finite(value: float | None) -> float | None:
    return value if value is not None and value < float("inf") else None


def target_table(records: Sequence[Record], method: str) -> Table | None:
    """The published figures of the targets' poses, None if there are none."""
    found = [r["result"][method]["targets"] for r in records if "targets" in r["result"].get(method, {})]
    if not found:
        return None
    values = torch.tensor(found, dtype=torch.float64)
    means, medians = values.mean(0).tolist(), values.quantile(0.5, dim=0).tolist()
    columns = [Column("figure"), Column("R", 2), Column("t folded", 2), Column("pose", 2)]
    rows = [["mean", *means], ["median", *medians]]
    note = "Per scene the mean over its targets, pose being the larger of the two means; then over scenes."
    return Table("Pose of the targets (published figures)", columns, rows, note)


def recall_charts(records: Sequence[Record]) -> list[Chart]:
    """Recall against error: rotation, direction, and the larger of both."""
    curves: list[tuple[str, Callable[[PoseErrors], Tensor]]] = [
        ("Rotation", lambda e: e.rotation),
        ("Translation direction", lambda e: e.translation[~e.translation.isnan()]),
        ("Larger of both", lambda e: e.maximum),
        ("Larger of both, direction up to sign", lambda e: e.maximum_folded),
    ]
    x = [_CURVE_END * k / (_CURVE_STEPS - 1) for k in range(_CURVE_STEPS)]
    charts = []
    for title, pick in curves:
        errors = {method: pick(pooled(records, method)) for method in methods(records)}
        series = [
            Series(method, x, recall_curve(values, _CURVE_END, _CURVE_STEPS))
            for method, values in errors.items()
            if len(values)
        ]
        if series:
            axes = ("error below (degrees)", "share of pairs")
            charts.append(line_chart(title, *axes, series, y_range=(0, 1)))
    return charts
