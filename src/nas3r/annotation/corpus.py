"""Labels for all clips of a set of shards; interrupted work goes on where it stopped."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nas3r.annotation.labelling import LabelOptions, label_clip
from nas3r.data.parts import Part
from nas3r.data.shards.records import REPORT_NAME
from nas3r.data.shards.writer import ShardWriter
from nas3r.data.sources.decoding import FrameCache, FrameStore
from nas3r.data.sources.tars import INDEX_NAME, Shard, TarClip
from nas3r.io.atomic import remove_leftovers, write_text
from nas3r.io.json_files import read_json
from nas3r.models import NAS3R

logger = logging.getLogger(__name__)

RECORDS = "records"
_CACHE = 1 << 28  # bytes of decoded frames: those of one clip are read more than once
_SHARD_MEGABYTES = 2000


@dataclass
class ShardRecord:
    """What became of one shard.

    Attributes:
        shard: Its name.
        options: With which options and weights it was labelled.
        shards: What was written, each with the name and number of frames of its clips.
        labelled: Number of clips with labels.
        left_out: Name of each clip without, and why; its frames are there all the same.
        error: Why the shard could not be read; empty if it could.
    """

    shard: str
    options: dict[str, Any] = field(default_factory=dict)
    shards: list[dict[str, Any]] = field(default_factory=list)
    labelled: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class AnnotationReport:
    """What became of all shards whose labels lie in a folder.

    Attributes:
        records: One per shard, of all parts so far.
        skipped: Shards of this part that were done before.
    """

    records: tuple[ShardRecord, ...]
    skipped: int

    def summary(self) -> dict[str, Any]:
        """Counts, as plain values."""
        return {
            "shards": len(self.records),
            "shards_done_before": self.skipped,
            "shards_unreadable": {r.shard: r.error for r in self.records if r.error},
            "clips_labelled": sum(r.labelled for r in self.records),
            "clips_left_out": {name: why for r in self.records for name, why in r.left_out.items()},
        }


def annotate_shards(
    model: NAS3R,
    weights: dict[str, str],
    shards: Path,
    out: Path,
    options: LabelOptions | None = None,
    *,
    part: Part | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> AnnotationReport:
    """Labels every clip of a folder of tar shards, and writes the frames with the labels beside them.

    Shards that are done (with the same weights and options) are not read again. Several machines may share
    `out`, each with its own part. Files appear complete or not at all. A clip that cannot be labelled is
    counted and named, and its frames are kept.

    Args:
        model: In eval mode.
        weights: What tells them from others: part of what a shard was done with.
        shards: Folder of tar shards.
        out: Another folder.
        options: How clips are labelled.
        part: Which of the shards, by their place in the order of their names.
        progress: Called with (shard, clips done, clips).

    Raises:
        ValueError: If there are no shards, or `out` is the folder they lie in.
        OSError: If `out` cannot be written to.
    """
    options, part = options or LabelOptions(), part or Part()
    files = sorted(shards.glob("*.tar"))
    if not files:
        raise ValueError(f"{shards}: holds no .tar shards")
    if out.resolve() == shards.resolve():
        raise ValueError(f"{out}: the labelled shards need a folder of their own")
    (out / RECORDS).mkdir(parents=True, exist_ok=True)
    for folder in (out, out / RECORDS):
        remove_leftovers(folder)
    done_with = {**asdict(options), "weights": weights}
    skipped = 0
    try:
        for file in (file for number, file in enumerate(files) if part.holds(number)):
            path = out / RECORDS / f"{file.stem}.json"
            if _is_done(_read(path), out, done_with):
                skipped += 1
                continue
            record = _annotate(model, file, out, options, done_with, progress)
            write_text(path, json.dumps(asdict(record)))
    finally:
        report = AnnotationReport(tuple(_records(out)), skipped)
        _write_index(out, report)
    return report


def _annotate(
    model: NAS3R,
    file: Path,
    out: Path,
    options: LabelOptions,
    done_with: dict[str, Any],
    progress: Callable[[str, int, int], None] | None,
) -> ShardRecord:
    record = ShardRecord(file.name, done_with)
    try:
        shard = Shard(file)
    except ValueError as error:
        logger.warning("%s is left out: %s", file.name, error)
        return ShardRecord(file.name, done_with, error=str(error))
    with ShardWriter(out, file.stem, _SHARD_MEGABYTES) as writer:
        for number, entry in enumerate(shard.clips):
            clip = TarClip(shard, entry, FrameStore(cache=FrameCache(_CACHE)))
            files = {}
            try:
                files = label_clip(model, clip, options).files()
                record.labelled += 1
            except (ValueError, OSError) as error:
                logger.warning("no labels for %s: %s", entry.name, error)
                record.left_out[entry.name] = str(error)
            frames = [shard.read(piece) for piece in entry.frames]
            writer.add(entry.name, frames, clip.description, files)
            if progress:
                progress(file.name, number + 1, len(shard.clips))
    record.shards = writer.shards
    return record


def _read(path: Path) -> ShardRecord | None:
    """A record, or None if it is absent or of another version; the shard is then done again."""
    try:
        return ShardRecord(**read_json(path))
    except (OSError, ValueError, TypeError):
        return None


def _is_done(record: ShardRecord | None, out: Path, done_with: dict[str, Any]) -> bool:
    return (
        record is not None
        and record.options == json.loads(json.dumps(done_with))
        and not record.error
        and all((out / shard["name"]).is_file() for shard in record.shards)
    )


def _records(out: Path) -> list[ShardRecord]:
    records = (_read(path) for path in sorted((out / RECORDS).glob("*.json")))
    return [record for record in records if record is not None]


def _write_index(out: Path, report: AnnotationReport) -> None:
    shards = [shard for record in report.records for shard in record.shards]
    write_text(out / INDEX_NAME, json.dumps({"shards": shards}))
    write_text(out / REPORT_NAME, json.dumps(report.summary(), indent=1))
