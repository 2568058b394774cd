"""Finding out what kind of data lies at a path."""

from collections.abc import Sequence
from pathlib import Path

from nas3r.data.clips import ClipSource
from nas3r.data.parts import Part
from nas3r.data.sources.chunks import ChunkSource
from nas3r.data.sources.decoding import FrameCache, FrameStore
from nas3r.data.sources.folders import FolderSource
from nas3r.data.sources.joined import JoinedSource, whole_shares
from nas3r.data.sources.tars import TarSource
from nas3r.data.sources.videos import VideoSource, list_videos
from nas3r.io.video import VIDEO_SUFFIXES


def open_source(
    paths: str | Path | Sequence[str | Path],
    *,
    weights: Sequence[float] = (),
    cover: tuple[int, int] | None = None,
    part: Part | None = None,
    cache_bytes: int = 1 << 30,
    cache_folder: Path | None = None,
) -> ClipSource:
    """Opens training clips of whatever kind; several paths are read as one source.

    In this order a path is: an http(s) address of tar shards; a folder of `.tar` shards or one of them; a
    folder of `.torch` chunks or one of them; else the videos and the folders of images below it, or a single
    video.

    Args:
        paths: One path or several.
        weights: How often each path is drawn from, in proportion; by default all clips equally often.
        cover: Height and width of the images wanted: frames are scaled, once, to just cover this.
        part: Only this part of the shards or chunks.
        cache_bytes: Memory for decoded frames.
        cache_folder: Where shards from an address are put; default: the user's cache folder.

    Returns:
        The clips. What was left out, and why, is in its `rejected`, if it has one.

    Raises:
        ValueError: There is nothing to train on at a path, or it is damaged; or weights do not fit.
        OSError: A path is missing or may not be read.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise ValueError("expected at least one path of training data")
    store = FrameStore(cover, FrameCache(cache_bytes))
    opened = [_open(path, store, cache_folder, part or Part()) for path in paths]
    if weights and len(paths) > 1:
        if len(weights) != len(paths):
            raise ValueError(f"expected a weight for each of {len(paths)} paths, got {len(weights)}")
        parts = [part[0] if len(part) == 1 else JoinedSource(part) for part in opened]
        return JoinedSource(parts, whole_shares(weights))
    sources = [source for part in opened for source in part]
    origins = [number for number, part in enumerate(opened) for _ in part]
    return sources[0] if len(sources) == 1 else JoinedSource(sources, origins=origins)


def _open(location: str | Path, store: FrameStore, cache_folder: Path | None, part: Part) -> list[ClipSource]:
    if str(location).startswith(("http://", "https://")):
        return [TarSource(str(location), store, cache_folder, part=part)]
    path = Path(location)
    if path.is_file() and part.of > 1:
        raise ValueError(f"{path}: only folders of shards or chunks can be split among machines")
    if path.is_file():
        return [_open_file(path, store)]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if any(path.glob("*.tar")):
        return [TarSource(path, store, part=part)]
    if any(path.glob("*.torch")):
        return [ChunkSource(path, store, part)]
    if part.of > 1:
        raise ValueError(f"{path}: only folders of shards or chunks can be split among machines")
    parts = sorted(p.name for p in path.iterdir() if p.is_dir() and any(p.glob("*.t[ao]r*")))
    if parts:
        raise ValueError(f"{path}: holds shards or chunks in {', '.join(parts)}: name one of these folders")
    return _open_plain(path, store)


def _open_file(path: Path, store: FrameStore) -> ClipSource:
    if path.suffix.lower() == ".tar":
        return TarSource(path, store)
    if path.suffix.lower() == ".torch":
        return ChunkSource(path, store)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(path, store)
    raise ValueError(f"{path}: expected a folder, a video, a .tar shard or a .torch chunk")


def _open_plain(path: Path, store: FrameStore) -> list[ClipSource]:
    sources: list[ClipSource] = []
    folders = FolderSource(path, store)
    if len(folders):
        sources.append(folders)
    if list_videos(path):
        sources.append(VideoSource(path, store))
    if sources:
        return sources
    if folders.rejected:
        reasons = "; ".join(f"{r.name}: {r.reason}" for r in folders.rejected[:3])
        raise ValueError(f"{path}: no clip can be used ({reasons})")
    raise ValueError(f"{path}: holds no videos, folders of images, .tar shards or .torch chunks")
