"""`nas3r data`: prepare, inspect and synthesise training data."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nas3r.bounds import LARGEST_SEED, MOST_PIXELS_A_SIDE, MOST_THREADS, Within

if TYPE_CHECKING:
    from nas3r.data.shards import VideoRecord


@dataclass(kw_only=True)
class Shard:
    """Cuts videos into clips and writes them as tar shards for training.

    Shots are split at cuts; static and too short clips, duplicate and blank frames are left out and counted
    in OUT/report.json. Interrupted work goes on where it stopped when run again.
    """

    videos: tyro.conf.Positional[tuple[Path, ...]]
    """Video files, and folders that are searched for them."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the shards; nothing is written elsewhere."""
    short_side: Annotated[int, Within(16, MOST_PIXELS_A_SIDE)] = 360
    """Shorter side of the stored frames in pixels; smaller videos keep their size."""
    fps: Annotated[float | None, Within(above=0)] = None
    """Most frames per second that are kept; default: all."""
    min_frames: Annotated[int, Within(3)] = 24
    """Shorter clips are left out."""
    max_frames: Annotated[int, Within(3)] = 300
    """Longer shots are cut into clips of this length."""
    min_motion: Annotated[float, Within(0, 1)] = 0.0003
    """A frame that moved less since the last one kept is a duplicate, as a fraction of the image width."""
    min_extent: Annotated[float, Within(0, 1)] = 0.04
    """A clip that never gets farther from its first frame is static, as a fraction of the image width."""
    quality: Annotated[int, Within(1, 100)] = 92
    """Of the JPEG files."""
    shard_megabytes: Annotated[int, Within(1)] = 500
    """Size at which another tar of the same video is begun."""
    workers: Annotated[int | None, Within(1, MOST_THREADS)] = None
    """Processes; default: one per CPU core."""
    part: str | None = None
    """I/N: only this part of the videos, for N machines that may share OUT."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the counts as JSON."""

    def run(self) -> int:
        """Shards the videos and prints what became of them."""
        import os

        from nas3r.data.parts import parse_part
        from nas3r.data.shards import ShardOptions, ShardReport, shard_videos

        options = ShardOptions(
            self.short_side, self.fps, self.min_frames, self.max_frames, self.min_motion, self.min_extent,
            self.quality, self.shard_megabytes,
        )  # fmt: skip
        with _VideoBar() as bar:
            report: ShardReport = shard_videos(
                self.videos,
                self.output,
                options,
                workers=self.workers or os.cpu_count() or 1,
                part=parse_part(self.part),
                progress=bar,
            )
        summary = report.summary()
        print(json.dumps(summary) if self.json else _describe(summary))
        return 0 if summary["clips"] else 2


@dataclass(kw_only=True)
class Inspect:
    """Shows what a training run will see: clips, samples along the curriculum, and what is left out."""

    paths: tyro.conf.Positional[tuple[str, ...]]
    """Videos, folders of videos or of frames, .torch chunks, tar shards; or "synthetic"."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The HTML page, one file."""
    recipe: str = "video-folder"
    """Training recipe whose image size, views and curriculum are shown."""
    gap: Annotated[tuple[int, int] | None, Within(1)] = None
    """As in `nas3r train`: least and largest number of frames between the outer context views at the end."""
    motion: Annotated[tuple[float, float] | None, Within(0)] = None
    """As in `nas3r train`: the same by how far the image moves, in image widths."""
    size: Annotated[int | None, Within(1, MOST_PIXELS_A_SIDE)] = None
    """Side of the square training images in pixels, instead of the recipe's."""
    clips: Annotated[int, Within(1)] = 24
    """Number of clips to look at."""
    samples: Annotated[int, Within(1)] = 6
    """Number of training samples per step shown."""
    seed: Annotated[int, Within(0, LARGEST_SEED)] = 0
    """Of the training."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the findings as JSON."""

    def run(self) -> int:
        """Writes the page and prints what deserves attention."""
        from nas3r.cli.progress import ProgressBars
        from nas3r.data.inspection import check_page, inspect_source, memory_of_inspection, write_page
        from nas3r.memory import require_memory_for_size

        check_page(self.output)
        sampler, size = self._sampler()
        views = sampler.context_views + sampler.target_views
        require_memory_for_size(
            lambda side: memory_of_inspection(side, clips=self.clips, samples=self.samples * views),
            size,
            "inspecting",
        )
        source = _open(self.paths, size, self.seed)
        end = sampler.schedule.warm_up
        steps = tuple(sorted({0, end // 4, end // 2, end}))
        with ProgressBars() as bars:
            found = inspect_source(
                source, sampler, steps=steps, height=size, width=size, seed=self.seed,
                clips=self.clips, samples=self.samples, progress=bars,
            )  # fmt: skip
        reported = [rejection for path in self.paths for rejection in _sharding_rejections(path)]
        facts = [
            ("training images", f"{size} x {size}"),
            ("views", f"{sampler.context_views} context, {sampler.target_views} target"),
            ("curriculum", f"recipe {self.recipe}, {end:,} steps"),
        ]
        names = ", ".join(path if "://" in path else Path(path).name or path for path in self.paths)
        write_page(self.output, found, f"Training data: {names}", facts, reported)
        if self.json:
            warnings = list(found.warnings)
            print(json.dumps({"clips": found.clips, "warnings": warnings, "report": str(self.output)}))
        else:
            print("\n".join([f"{found.clips:,} clips", *found.warnings, f"wrote {self.output}"]))
        return 0

    def _sampler(self) -> tuple[Any, int]:
        """How views are chosen, and the image size."""
        from dataclasses import replace

        from nas3r.data.sampling import ending_at
        from nas3r.training import recipes

        data = recipes.get(self.recipe).data
        schedule = ending_at(data.sampler.schedule, gap=self.gap, motion=self.motion)
        sampler = replace(data.sampler, schedule=schedule)
        return sampler, self.size or data.height


@dataclass(kw_only=True)
class Synthesise:
    """Writes procedural clips of static worlds: images for training and, apart from them, true cameras.

    OUT/frames or OUT/*.tar hold the images, OUT/cameras/CLIP/transforms.json (nerfstudio) the cameras.
    """

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder; run again to add clips."""
    clips: Annotated[int, Within(1)] = 100
    """Number of clips."""
    frames: Annotated[int, Within(2)] = 64
    """Frames per clip."""
    size: Annotated[tuple[int, int], Within(8, MOST_PIXELS_A_SIDE)] = (128, 128)
    """Width and height of the images in pixels."""
    seed: Annotated[int, Within(0, LARGEST_SEED)] = 0
    """Of the whole collection."""
    layout: Literal["folders", "shards"] = "folders"
    """Folders of PNG files, or tar shards of JPEG files."""
    photos: str | None = None
    """Folder of photos to use as textures."""
    noise: Annotated[float, Within(0, 1)] = 0.0
    """Standard deviation of sensor noise, of 1."""
    exposure: Annotated[float, Within(0, 10)] = 0.0
    """Change of exposure within a clip, in stops."""
    blur: Annotated[float, Within(0, 1)] = 0.0
    """Standard deviation of defocus, as a fraction of the image width."""
    moving: Annotated[float, Within(0, 1)] = 0.0
    """Share of the objects that move."""
    distortion: Annotated[float, Within(0, 1)] = 0.0
    """Radial lens distortion, at most this."""
    device: str = "cpu"
    """Where to render: cpu or cuda."""

    def run(self) -> int:
        """Writes the clips."""
        from nas3r.cli.progress import ProgressBars
        from nas3r.data.synthesis import SynthesisOptions, write_clips
        from nas3r.data.synthetic import SyntheticConfig

        config = SyntheticConfig(
            frames=self.frames, photos=self.photos, noise=self.noise, exposure=self.exposure,
            blur=self.blur, moving=self.moving, distortion=self.distortion,
        )  # fmt: skip
        width, height = self.size
        options = SynthesisOptions(self.seed, self.clips, height, width, self.layout, config=config)
        with ProgressBars() as bars:
            made = write_clips(self.output, options, device=self.device, progress=bars)
        print(f"made {made} clips, {self.clips} in {self.output}")
        return 0


Command = (
    Annotated[Shard, tyro.conf.subcommand("shard")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Synthesise, tyro.conf.subcommand("synthesise")]
)


class _VideoBar:
    """Counts the videos done."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit=" videos", disable=None, delay=1.0)  # nothing where there is no terminal

    def __call__(self, record: "VideoRecord") -> None:
        self._bar.update()
        self._bar.set_postfix_str(f"{record.clips} clips of {record.video}")

    def __enter__(self) -> "_VideoBar":
        return self

    def __exit__(self, *unused: object) -> None:
        self._bar.close()


def _open(paths: Sequence[str], size: int, seed: int) -> Any:
    from nas3r.data.sources import open_source
    from nas3r.data.synthetic import SyntheticClips

    if list(paths) == ["synthetic"]:
        return SyntheticClips(seed, height=size, width=size)
    return open_source(paths, cover=(size, size))


def _sharding_rejections(path: str) -> list[tuple[str, str]]:
    """What was left out when shards were made."""
    from nas3r.data.shards.records import rejections

    return rejections(Path(path))


def _describe(summary: dict[str, Any]) -> str:
    """Counts in words, one thing per line."""
    kept = summary["frames"].get("kept", 0)
    videos = summary["videos"] - len(summary["videos_unreadable"])
    lines = [f"{summary['clips']:,} clips of {kept:,} frames from {videos:,} videos"]
    if summary["videos_done_before"]:
        lines.append(f"{summary['videos_done_before']} videos were done before")
    lines += [f"clips left out, {reason}: {n}" for reason, n in summary["clips_rejected"].items()]
    lines += [f"frames left out, {fate}: {n:,}" for fate, n in summary["frames"].items() if fate != "kept"]
    lines += [f"video left out, {name}: {reason}" for name, reason in summary["videos_unreadable"].items()]
    return "\n".join(lines)
