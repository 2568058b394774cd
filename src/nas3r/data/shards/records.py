"""What became of each video, kept beside the shards."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nas3r.data.sources.tars import INDEX_NAME
from nas3r.io.atomic import write_text
from nas3r.io.json_files import read_json

REPORT_NAME = "report.json"


@dataclass
class VideoRecord:
    """What became of one video.

    Attributes:
        video: Its name.
        options: The `ShardOptions` it was made with.
        shards: File names, each with the name and number of frames of its clips.
        frames: Number of frames by what became of them: "kept", "duplicate", "blank", "transition", "thinned
            out", or the reason for which their clip was rejected.
        rejected: Clips left out: first frame, number of frames, reason.
        error: Why the video could not be read; empty if it could.
    """

    video: str
    options: dict[str, Any] = field(default_factory=dict)
    shards: list[dict[str, Any]] = field(default_factory=list)
    frames: dict[str, int] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    def count(self, fate: str, frames: int = 1) -> None:
        """Counts frames by what became of them."""
        self.frames[fate] = self.frames.get(fate, 0) + frames

    @property
    def clips(self) -> int:
        """Number of clips kept."""
        return sum(len(shard["clips"]) for shard in self.shards)


@dataclass(frozen=True)
class ShardReport:
    """What became of all videos whose shards lie in a folder.

    Attributes:
        records: One per video.
        skipped: Videos that were done before.
    """

    records: tuple[VideoRecord, ...]
    skipped: int

    @property
    def frames(self) -> Counter[str]:
        """Frames by what became of them."""
        return sum((Counter(record.frames) for record in self.records), Counter())

    @property
    def rejected_clips(self) -> Counter[str]:
        """Clips left out, by reason."""
        return Counter(clip["reason"] for record in self.records for clip in record.rejected)

    def summary(self) -> dict[str, Any]:
        """Everything that a reader wants to know first, as plain values."""
        return {
            "videos": len(self.records),
            "videos_done_before": self.skipped,
            "videos_unreadable": {r.video: r.error for r in self.records if r.error},
            "clips": sum(record.clips for record in self.records),
            "clips_rejected": dict(self.rejected_clips.most_common()),
            "frames": dict(self.frames.most_common()),
        }


def read_records(folder: Path) -> list[VideoRecord]:
    """All records in a folder, by name of the video."""
    records = (read_record(path) for path in (folder).glob("*.json"))
    return sorted((record for record in records if record is not None), key=lambda record: record.video)


def read_record(path: Path) -> VideoRecord | None:
    """A record, or None if it is absent or of another version; the video is then done again."""
    try:
        return VideoRecord(**read_json(path))
    except (OSError, ValueError, TypeError):
        return None


def write_index(out: Path, report: ShardReport) -> None:
    """Writes the index of all shards in a folder, and the report."""
    shards = [shard for record in report.records for shard in record.shards]
    write_text(out / INDEX_NAME, json.dumps({"shards": shards}))
    videos = [{k: v for k, v in asdict(r).items() if k not in ("shards", "options")} for r in report.records]
    write_text(out / REPORT_NAME, json.dumps({**report.summary(), "per_video": videos}, indent=1))


def rejections(folder: Path) -> list[tuple[str, str]]:
    """What was left out when the shards of a folder were made: name and reason; empty without a report."""
    try:
        videos = read_json(folder / REPORT_NAME)["per_video"]
        unreadable = [(v["video"], v["error"]) for v in videos if v["error"]]
        clips = [
            (f"{v['video']}, frame {clip['first']}", f"{clip['reason']} ({clip['frames']} frames)")
            for v in videos
            for clip in v["rejected"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return unreadable + clips
