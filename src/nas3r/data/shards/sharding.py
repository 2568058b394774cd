"""The work on many videos: which are still to do, who does them, and the index of the result."""

import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from nas3r.data.parallel import run_all
from nas3r.data.parts import Part
from nas3r.data.shards.cutting import cut_clips
from nas3r.data.shards.options import ShardOptions
from nas3r.data.shards.records import ShardReport, VideoRecord, read_record, read_records, write_index
from nas3r.data.shards.writer import ShardWriter
from nas3r.data.sources.videos import list_videos
from nas3r.io.atomic import remove_leftovers, write_text
from nas3r.io.video import VIDEO_SUFFIXES

RECORDS = "records"


def shard_videos(
    videos: Sequence[Path],
    out: Path,
    options: ShardOptions | None = None,
    *,
    workers: int = 1,
    part: Part | None = None,
    progress: Callable[[VideoRecord], None] | None = None,
) -> ShardReport:
    """Cuts videos into clips and writes them as shards.

    Nothing is written outside `out`. Videos that are in there already (the same bytes under whatever name,
    made with the same options) are not read again. Files appear complete or not at all.

    Args:
        videos: Video files, and folders that are searched for them.
        out: Folder of the shards, their `index.json`, the records and `report.json`.
        options: What becomes of a video.
        workers: Processes.
        part: Which of the videos, by a hash of their content: machines with different parts share the work,
            also where they see the videos under different names, and may share `out`.
        progress: Called after every video.

    Returns:
        What became of the videos, those done before included.

    Raises:
        ValueError: There is no video.
        OSError: `out` cannot be written to, or the disk is full.
    """
    options = options or ShardOptions()
    found = _find(videos)
    (out / RECORDS).mkdir(parents=True, exist_ok=True)
    for folder in (out, out / RECORDS):
        remove_leftovers(folder)
    jobs, failed, skipped = _jobs(found, out, options, part or Part())
    try:
        for record in run_all(_shard_one, jobs, workers):
            if record.error:
                failed.append(record)
            if progress:
                progress(record)
    finally:
        report = ShardReport((*read_records(out / RECORDS), *failed), skipped)
        write_index(out, report)
    return report


def _find(videos: Sequence[Path]) -> list[tuple[str, Path]]:
    """Name and path of every video."""
    found: list[tuple[str, Path]] = []
    for path in videos:
        if path.is_dir():
            found += [(str(file.relative_to(path)), file) for file in list_videos(path)]
        elif not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file or folder")
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            found.append((path.name, path))
        else:
            raise ValueError(f"{path}: expected a video ({', '.join(sorted(VIDEO_SUFFIXES))})")
    if not found:
        raise ValueError(f"{', '.join(map(str, videos)) or 'no path was given'}: there are no videos")
    return found


def _jobs(
    found: Sequence[tuple[str, Path]], out: Path, options: ShardOptions, part: Part
) -> tuple[list[tuple[str, Path, str, Path, ShardOptions]], list[VideoRecord], int]:
    """Arguments of `_shard_one` for the videos still to do, videos left out, and the number done before."""
    jobs, left_out, skipped = [], [], 0
    first_name: dict[str, str] = {}
    for name, path in found:
        try:
            identity = _identity(path)
        except OSError as error:
            left_out.append(VideoRecord(name, error=str(error)))
            continue
        if not part.holds(int(identity, 16)):
            continue
        if identity in first_name:
            left_out.append(VideoRecord(name, error=f"the same file as {first_name[identity]}"))
            continue
        first_name[identity] = name
        if _is_done(out, identity, options):
            skipped += 1
        else:
            jobs.append((name, path, identity, out, options))
    return jobs, left_out, skipped


def _identity(path: Path) -> str:
    """Of the content: a hash of the size and of both ends of the file."""
    end = 1 << 16
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        digest = hashlib.blake2b(str(size).encode(), digest_size=6)
        for start in (0, max(0, size - end)):
            file.seek(start)
            digest.update(file.read(end))
    return digest.hexdigest()


def _is_done(out: Path, identity: str, options: ShardOptions) -> bool:
    record = read_record(out / RECORDS / f"{identity}.json")
    return (
        record is not None
        and record.options == asdict(options)
        and all((out / shard["name"]).is_file() for shard in record.shards)
    )


def _shard_one(name: str, path: Path, identity: str, out: Path, options: ShardOptions) -> VideoRecord:
    """Makes the shards and the record of one video."""
    record_path = out / RECORDS / f"{identity}.json"
    earlier = read_record(record_path)
    record = VideoRecord(name, asdict(options))
    readable = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem)[:40].strip("-") or "video"
    prefix = f"{readable}-{identity}"
    try:
        with ShardWriter(out, prefix, options.shard_megabytes) as writer:
            for clip in cut_clips(path, options, record):
                writer.add(f"{prefix}-{clip.first:07d}", clip.frames, clip.description(name))
        record.shards = writer.shards
    except ValueError as error:
        return VideoRecord(name, error=str(error))
    write_text(record_path, json.dumps(asdict(record)))
    for shard in earlier.shards if earlier else ():  # made with other options
        if shard["name"] not in {s["name"] for s in record.shards}:
            (out / Path(shard["name"]).name).unlink(missing_ok=True)
    return record
