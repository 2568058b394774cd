"""Training samples per second of CPU time from each kind of clip source, and the cost of sharding a video.

    python benchmarks/loading.py VIDEO_FOLDER [--size 224] [--videos 4] [--work FOLDER]

Frames, shards and videos hold the same clips. All figures are CPU time of one thread (other work on the
machine disturbs them little); the ratio between the rows is what matters.
"""

import json
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from nas3r.data.clips import ClipSource
from nas3r.data.loaders import BatchPlan, ClipLoader
from nas3r.data.sampling import GapSchedule, ViewSampler
from nas3r.data.shards import ShardOptions, shard_videos
from nas3r.data.sources import open_source
from nas3r.data.sources.videos import list_videos
from nas3r.io.images import save_image
from nas3r.io.video import read_frames

SAMPLER = ViewSampler(GapSchedule((10, 25), (10, 25), 0))


@dataclass
class Benchmark:
    """Loads batches from the same clips in several forms."""

    videos_folder: tyro.conf.Positional[Path]
    """Folder of videos."""
    size: int = 224
    """Side of the training images."""
    videos: int = 4
    """Number of videos used."""
    batches: int = 10
    """Batches of 4 samples of 3 views that are timed."""
    work: Path | None = None
    """Where the forms are written; default: a temporary folder."""
    output: Path | None = None
    """JSON file for the figures."""

    def run(self) -> None:
        """Prints a table."""
        with tempfile.TemporaryDirectory() as folder:
            work = self.work or Path(folder)
            videos = list_videos(self.videos_folder)[: self.videos]
            rows = self._prepare(videos, work)
            rows |= self._sources(videos, work)
        for name, values in rows.items():
            print(f"{name:34}", "  ".join(f"{key} {value:.4g}" for key, value in values.items()))
        if self.output:
            report = {
                "size": self.size,
                "videos": [v.name for v in videos],
                "machine": platform.machine(),
                "rows": rows,
            }
            self.output.write_text(json.dumps(report, indent=1) + "\n")

    def _prepare(self, videos: list[Path], work: Path) -> dict[str, dict[str, float]]:
        start = time.process_time()
        report = shard_videos(videos, work / "shards", ShardOptions())
        seconds, frames = time.process_time() - start, sum(report.frames.values())
        for video in videos:
            (work / "frames" / video.stem).mkdir(parents=True)
            for i, image in enumerate(read_frames(video, max_size=640)):
                save_image(work / "frames" / video.stem / f"{i:05d}.jpg", image, quality=92)
        stored = sum(path.stat().st_size for path in (work / "shards").glob("*.tar"))
        return {
            "sharding": {
                "frames/s": frames / seconds,
                "kB per frame": stored / report.frames["kept"] / 1e3,
                "of the video's bytes": stored / sum(video.stat().st_size for video in videos),
            }
        }

    def _sources(self, videos: list[Path], work: Path) -> dict[str, dict[str, float]]:
        cover, small = (self.size, self.size), 1 << 20
        sources = {
            "frames, nothing in memory": open_source(work / "frames", cover=cover, cache_bytes=small),
            "shards, nothing in memory": open_source(work / "shards", cover=cover, cache_bytes=small),
            "shards, all in memory": open_source(work / "shards", cover=cover),
            "videos, seeking": open_source(list(videos), cover=cover, cache_bytes=small),
            "videos, all in memory": open_source(list(videos), cover=cover),
        }
        return {name: self._time(source, warm="all" in name) for name, source in sources.items()}

    def _time(self, source: ClipSource, warm: bool) -> dict[str, float]:
        loader = ClipLoader(source, BatchPlan(SAMPLER, batch_size=4, seed=0), self.size, self.size)
        first = time.process_time()
        for i in range(len(source) if warm else 0):
            source[i].read(range(len(source[i])))
        start = time.process_time()
        for step in range(self.batches):
            loader.batch(step)
        seconds = time.process_time() - start
        row = {"samples/s": 4 * self.batches / seconds}
        return row | ({"seconds to fill": start - first} if warm else {})


if __name__ == "__main__":
    tyro.cli(Benchmark).run()
