"""Reading clips from folders, videos, chunks and shards."""

import functools
import http.server
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_clips import numbered, read_number
from PIL import Image

from nas3r.data.clips import Clip, ClipSource
from nas3r.data.loaders import BatchPlan, ClipLoader
from nas3r.data.loaders.clips import fit
from nas3r.data.parts import Part
from nas3r.data.sampling import GapSchedule, ViewSampler
from nas3r.data.sources import open_source
from nas3r.data.sources.chunks import load_chunk
from nas3r.data.sources.decoding import FrameCache
from nas3r.data.sources.joined import JoinedSource, whole_shares
from nas3r.data.sources.tars import TarSource, parse_index
from nas3r.data.sources.videos import VideoSource
from nas3r.io.images import Resize, save_image
from nas3r.io.video import read_frames, write_video


def names(source: ClipSource) -> list[str]:
    return [source[i].name for i in range(len(source))]


def assert_numbers(clip: Clip, number: int, indices: list[int], frames: list[int] | None = None) -> None:
    images = clip.read(indices)
    assert images.dtype == torch.uint8
    assert images.shape[:2] == (len(indices), 3)
    assert [read_number(image) for image in images] == [(number, f) for f in frames or indices]


def test_folders(frame_folders: Path) -> None:
    source = open_source(frame_folders)
    assert isinstance(source, ClipSource)
    assert isinstance(source[0], Clip)
    assert names(source) == [f"clip{i}" for i in range(5)]
    assert len(source[3]) == 12
    assert_numbers(source[3], 3, [11, 2, 2, 10])
    alone = open_source(frame_folders / "clip1")
    assert names(alone) == ["clip1"]
    assert_numbers(alone[0], 1, [0, 1])


def test_unusable_folders_are_left_out_and_named(frame_folders: Path) -> None:
    for i in range(4):
        (frame_folders / "depth").mkdir(exist_ok=True)
        save_image(frame_folders / "depth" / f"{i}.png", np.full((4, 4), 1000, np.uint16))
    (frame_folders / "pair").mkdir()
    for i in range(2):
        save_image(frame_folders / "pair" / f"{i}.png", numbered(0, 0))
    (frame_folders / ".cache").mkdir()
    save_image(frame_folders / ".cache" / "0.png", numbered(0, 0))
    source = open_source(frame_folders)
    assert len(source) == 5
    rejected = {r.name: r.reason for r in source.rejected}  # type: ignore[attr-defined]
    assert rejected == {"depth": "depth maps or masks, not photos", "pair": "fewer than 3 images"}


def test_frames_of_several_sizes_and_damaged_frames_are_named(frame_folders: Path) -> None:
    save_image(frame_folders / "clip0" / "1.png", numbered(0, 1, 10, 10))
    (frame_folders / "clip0" / "2.png").write_bytes(b"no image")
    clip = open_source(frame_folders)[0]
    with pytest.raises(ValueError, match="clip0: frames differ in size"):
        clip.read([0, 1])
    with pytest.raises(ValueError, match=r"clip0/2\.png"):
        clip.read([2])
    with pytest.raises(ValueError, match="from 0 to 11"):
        clip.read([12])
    assert_numbers(clip, 0, [0, 3])


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    pytest.importorskip("av")
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    for clip, name in enumerate(("a.mp4", "more/b.mp4")):
        write_video(folder / name, [numbered(clip, f, 48, 64) for f in range(20)], fps=30, quality=4)
    return folder


@pytest.mark.parametrize("cache_bytes", [1 << 20, 30_000])  # whole videos at once; frame by frame
def test_videos(videos: Path, cache_bytes: int) -> None:
    source = open_source(videos, cache_bytes=cache_bytes, cover=(24, 24))
    assert names(source) == ["a.mp4", "more/b.mp4"]
    assert len(source[1]) == 20
    assert_numbers(source[1], 1, [19, 3, 4])
    assert source[1].read([0]).shape == (1, 3, 24, 32)
    assert_numbers(open_source(videos / "a.mp4")[0], 0, [7])


def test_a_damaged_video_does_not_stop_the_others(videos: Path) -> None:
    (videos / "a.mp4").write_bytes(b"no video")
    source = open_source(videos)
    assert len(source) == 2
    with pytest.raises(ValueError, match=r"a\.mp4"):
        source[0]
    assert_numbers(source[1], 1, [0])


def test_folders_and_videos_together(frame_folders: Path, videos: Path) -> None:
    source = open_source([frame_folders, videos])
    assert len(source) == 7
    assert_numbers(source[4], 4, [1])
    assert_numbers(source[6], 1, [1])
    assert isinstance(source, JoinedSource)
    order = [source.index_at(i, 0) for i in range(14)]
    assert sorted(order[:7]) == sorted(order[7:]) == list(range(7))
    assert order[:7] != order[7:]


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ((3, 1), [3, 1]),
        ((0.75, 0.25), [3, 1]),
        ((1, 1), [1, 1]),
        ((1 / 3, 2 / 3, 1), [1, 2, 3]),
        ((6, 4), [3, 2]),
    ],
)
def test_weights_become_whole_shares(weights, shares) -> None:
    assert whole_shares(weights) == shares


def test_paths_are_drawn_from_by_weight(frame_folders: Path, chunks: Path) -> None:
    source = open_source([frame_folders, chunks], weights=(3, 1))
    assert isinstance(source, JoinedSource)
    order = [source.index_at(i, 0) for i in range(80)]
    for start in range(0, 80, 4):  # exactly, in every round
        assert sorted(source.origin(index) for index in order[start : start + 4]) == [0, 0, 0, 1]
    seen = Counter(order)
    assert {seen[i] for i in range(5)} == {12}  # every clip of a path as often as the others
    assert {seen[5 + i] for i in range(6)} == {3, 4}
    again = open_source([frame_folders, chunks], weights=(3, 1))
    assert [again.index_at(i, 0) for i in range(79, 40, -1)] == order[79:40:-1]  # from anywhere
    assert [again.index_at(i, 1) for i in range(80)] != order
    with pytest.raises(ValueError, match="a weight for each of 2 paths"):
        open_source([frame_folders, chunks], weights=(1,))
    with pytest.raises(ValueError, match=r"at least 0\.001"):
        open_source([frame_folders, chunks], weights=(1, 0))


@pytest.mark.parametrize("index", [True, False])
def test_chunks(chunks: Path, index: bool) -> None:
    if not index:
        (chunks / "index.json").unlink()
    source = open_source(chunks)
    assert names(source) == [f"scene{i}" for i in range(6)]
    assert_numbers(source[3], 3, [9, 0])
    assert not hasattr(source[3], "cameras")
    order = [source.index_at(i, 1) for i in range(12)]  # type: ignore[attr-defined]
    assert sorted(order[:6]) == sorted(order[6:]) == list(range(6))


def test_chunks_keep_the_raw_cameras_for_those_who_want_them(chunks: Path) -> None:
    scene = load_chunk(chunks / "000001.torch")[0]
    assert scene.key == "scene2"
    assert scene.cameras is not None
    assert scene.cameras.shape == (10, 18)


class Payload:
    """What a malicious pickle does: calls a function when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_chunks_run_no_code_and_damage_is_named(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "bad.torch"
    torch.save([{"key": "a", "images": Payload(trace)}], path)
    with pytest.raises(ValueError, match=r"bad\.torch"):
        load_chunk(path)
    assert not trace.exists()
    for content in (b"", b"not a chunk", (b"PK\x03\x04" + b"\x00" * 100)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.torch"):
            load_chunk(path)
    for content, says in (
        ({"key": 1}, "list of scenes"),
        ([{"key": "a"}], "key and images"),
        ([{"key": "a", "images": [torch.zeros(3)]}], "uint8"),
        ([{"key": "a", "images": [], "cameras": 3}], "tensor"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=says):
            load_chunk(path)
    with pytest.raises(FileNotFoundError):
        load_chunk(tmp_path / "nothing.torch")


def test_old_chunks_that_cannot_be_mapped(tmp_path: Path) -> None:
    scenes = [{"key": "a", "images": [torch.zeros(3, dtype=torch.uint8)]}]
    torch.save(scenes, tmp_path / "old.torch", _use_new_zipfile_serialization=False)
    scene = load_chunk(tmp_path / "old.torch")[0]
    assert len(scene.images) == 1
    assert scene.cameras is None


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("style", ["{clip}.{frame}.jpg", "{clip}.{frame:06d}.jpg", "{clip}/{frame}.jpg"])
def test_tar_shards(write_shards: Callable[..., Path], index: bool, style: str) -> None:
    source = open_source(write_shards(index=index, style=style))
    assert names(source) == [f"clip{i}" for i in range(6)]
    assert len(source[4]) == 8
    assert_numbers(source[4], 4, [0, 5, 6, 7], frames=[0, 5, 10, 11])
    assert source[4].travel[2] == pytest.approx(0.2)  # type: ignore[attr-defined]


def test_one_tar_alone(write_shards: Callable[..., Path]) -> None:
    assert names(open_source(write_shards() / "s1.tar")) == ["clip2", "clip3"]


def test_recorded_travel_must_fit(write_shards: Callable[..., Path]) -> None:
    path = write_shards() / "s0.tar"
    path.write_bytes(path.read_bytes().replace(b"[0.0, 0.1,", b"[         "))
    with pytest.raises(ValueError, match="clip0: expected travel of 8 frames"):
        _ = open_source(path)[0].travel  # type: ignore[attr-defined]


def test_damaged_shards_are_named(write_shards: Callable[..., Path]) -> None:
    folder = write_shards()
    data = (folder / "s0.tar").read_bytes()
    (folder / "s0.tar").write_bytes(data[: len(data) // 2])
    (folder / "s1.tar").write_bytes((folder / "s2.tar").read_bytes())
    source = open_source(folder)
    with pytest.raises(ValueError, match=r"s0\.tar"):
        source[0]
    with pytest.raises(ValueError, match=r"s1\.tar: does not hold"):
        source[2]
    assert_numbers(source[4], 4, [0])
    (folder / "index.json").unlink()
    source = open_source(folder)
    assert [r.name for r in source.rejected] == ["s0.tar"]  # type: ignore[attr-defined]
    (folder / "index.json").write_text("{")
    with pytest.raises(ValueError, match=r"index\.json"):
        open_source(folder)


@pytest.mark.parametrize("name", ["../s0.tar", "/etc/s0.tar", "a/b.tar", ".tar", "s0.zip", "..\\s.tar"])
def test_an_index_cannot_point_elsewhere(name: str) -> None:
    text = json.dumps({"shards": [{"name": name, "clips": []}]})
    with pytest.raises(ValueError, match="plain file names"):
        parse_index(text, "index.json")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    requests: list[str] = []  # noqa: RUF012

    def log_message(self, format: str, *args) -> None:
        pass

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()


@pytest.fixture
def served(write_shards: Callable[..., Path]) -> Iterator[str]:
    folder = write_shards(shards=6, clips=2)
    QuietHandler.requests.clear()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_shards_from_a_web_server_keep_only_a_few_on_the_disk(served: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    source = TarSource(served, cache_folder=cache, window=1)
    assert len(source) == 12
    seen, most = [], 0
    for position in range(24):
        index = source.index_at(position, seed=3)
        assert_numbers(source[index], index, [0, 7], frames=[0, 11])
        seen.append(index)
        most = max(most, len([p for p in cache.glob("*.tar") if not p.name.startswith(".")]))
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert most <= 4  # two windows of one shard, and two on their way in and out
    fetched = [path for path in QuietHandler.requests if path.endswith(".tar")]
    assert len(fetched) <= 2 * 6 + 2  # each about once an epoch


def test_a_connection_that_breaks_off_is_tried_again(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas3r.data.sources.shard_files.time.sleep", lambda seconds: None)
    broken = [2]  # answers that still break off

    def do_get(self: QuietHandler) -> None:
        if self.path.endswith(".tar") and broken[0]:
            broken[0] -= 1
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
        else:
            http.server.SimpleHTTPRequestHandler.do_GET(self)

    monkeypatch.setattr(QuietHandler, "do_GET", do_get)
    source = TarSource(served, cache_folder=tmp_path / "cache")
    assert_numbers(source[0], 0, [0])
    broken[0] = 1000
    with pytest.raises(ConnectionError, match=r"s5\.tar: cannot be fetched"):
        source[11]
    assert not list((tmp_path / "cache").glob("*s5*"))


def test_shards_of_an_earlier_run_are_used(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        source = open_source(served)
        assert_numbers(source[0], 0, [0])
    assert QuietHandler.requests.count("/s0.tar") == 1
    assert len(list((tmp_path / "nas3r" / "shards").rglob("s0.tar"))) == 1


def test_web_server_errors(served: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="404"):
        TarSource(f"{served}/nothing", cache_folder=tmp_path / "cache")
    with pytest.raises(OSError, match=r"127\.0\.0\.1:9"):
        TarSource("http://127.0.0.1:9/x", cache_folder=tmp_path / "cache")


def test_windows_visit_few_shards_at_a_time(write_shards: Callable[..., Path]) -> None:
    source = TarSource(write_shards(shards=6, clips=3), window=2)
    order = [source.index_at(i, 0) for i in range(18)]
    assert sorted(order) == list(range(18))
    for start in range(0, 18, 6):
        assert len({index // 3 for index in order[start : start + 6]}) == 2
    assert order == [source.index_at(i, 0) for i in range(18)]
    assert order != [source.index_at(i, 1) for i in range(18)]


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such"):
        open_source(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no videos"):
        open_source(tmp_path)
    with pytest.raises(ValueError, match="at least one path"):
        open_source([])
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"a\.txt: expected a folder"):
        open_source(tmp_path / "a.txt")
    (tmp_path / "train").mkdir()
    torch.save([], tmp_path / "train" / "000.torch")
    with pytest.raises(ValueError, match="in train: name one"):
        open_source(tmp_path)


def test_cache_keeps_the_last_used_frames() -> None:
    cache = FrameCache(capacity=250)
    for i in range(3):
        cache.put(i, torch.zeros(100, dtype=torch.uint8))
        cache.get(0)
    assert cache.get(0) is not None
    assert cache.get(1) is None
    assert cache.get(2) is not None
    cache.put(0, torch.zeros(50, dtype=torch.uint8))
    cache.put(3, torch.zeros(100, dtype=torch.uint8))
    assert cache.get(2) is not None


@pytest.mark.parametrize(
    ("size", "cover"),
    [((640, 360), (224, 224)), ((640, 360), (400, 400)), ((90, 160), (32, 64)), ((1500, 2), (8, 8))],
)
def test_frames_are_scaled_once_and_then_cropped(
    tmp_path: Path, size: tuple[int, int], cover: tuple[int, int]
) -> None:
    """What a loader makes of a frame is what scaling and cropping the picture itself gives."""
    pictures = [np.asarray(Image.effect_noise(size, 80 + i).convert("RGB")) for i in range(3)]
    for i, picture in enumerate(pictures):
        save_image(tmp_path / f"{i}.png", picture)
    frames = open_source(tmp_path, cover=cover)[0].read([2, 0])
    resize = Resize(*size, cover[1], cover[0])
    assert frames.shape[-2:] == (cover if resize.of_strip else resize.scaled_size[::-1])
    crops = fit(frames, *cover)
    assert crops.untyped_storage().data_ptr() == frames.untyped_storage().data_ptr()  # nothing was made anew
    for crop, i in zip(crops, (2, 0), strict=True):
        np.testing.assert_array_equal(crop.permute(1, 2, 0).numpy(), resize.apply(pictures[i]))


def test_a_video_is_scaled_by_its_decoder_alone(videos: Path) -> None:
    """Once, to the size that just covers: the frames are those that the decoder makes of it."""
    frames = open_source(videos / "a.mp4", cover=(24, 24))[0].read([5, 9])
    decoded = list(read_frames(videos / "a.mp4", [5, 9], max_size=32))
    np.testing.assert_array_equal(frames.permute(0, 2, 3, 1).numpy(), np.stack(decoded))


def test_real_data(shared_data: Path) -> None:
    source = open_source([shared_data / "7scenes_redkitchen", shared_data / "office_antoniocarevic"])
    assert names(source) == ["color", "images"]
    assert [len(source[i]) for i in range(2)] == [300, 68]
    assert source[1].read([0, 67]).shape == (2, 3, 640, 360)
    assert {r.reason for r in source.rejected} == {"depth maps or masks, not photos"}  # type: ignore[attr-defined]


def test_video_source_of_real_clips(shared_data: Path) -> None:
    av = pytest.importorskip("av")
    source = VideoSource(shared_data / "renders_haofeixu")
    assert len(source) == 13
    clip = source[7]
    assert len(clip) in (264, 279)
    with av.open(str(sorted((shared_data / "renders_haofeixu").glob("*.mp4"))[7])) as container:
        decoded = [image.to_ndarray(format="rgb24") for image, _ in zip(container.decode(video=0), range(11))]
    difference = clip.read([10])[0].permute(1, 2, 0).numpy().astype(int) - decoded[10]
    assert difference.shape == (512, 960, 3)
    assert np.abs(difference).mean() < 1  # another conversion of colours; frame 9 is off by more
    assert np.abs(difference).mean() < np.abs(difference + decoded[10].astype(int) - decoded[9]).mean() / 2


@pytest.mark.parametrize("kind", ["shards", "chunks"])
def test_machines_read_shards_of_their_own(
    kind: str, write_shards: Callable[..., Path], chunks: Path
) -> None:
    folder = chunks if kind == "chunks" else write_shards(shards=3)
    everything = names(open_source(folder))
    parts = [names(open_source(folder, part=Part(i, 2))) for i in (1, 2)]
    assert sorted(parts[0] + parts[1]) == sorted(everything)
    assert parts[1] == everything[2:4]
    with pytest.raises(ValueError, match="leave none for part 4/4"):
        open_source(folder, part=Part(4, 4))
    with pytest.raises(ValueError, match="only folders of shards"):
        open_source(next(folder.glob("*.t[ao]r*")), part=Part(1, 2))


def test_an_epoch_of_machines_visits_every_clip_once(chunks: Path) -> None:
    sampler = ViewSampler(GapSchedule((2, 2), (2, 2), 0))
    seen = Counter()
    for node in range(2):
        source = open_source(chunks, part=Part(node + 1, 2))
        for rank in (2 * node, 2 * node + 1):  # two processes a machine
            plan = BatchPlan(sampler, batch_size=4, seed=1, rank=rank, world_size=4, node=node, nodes=2)
            loader = ClipLoader(source, plan, 16, 16)
            for step in range(len(source) // 2):  # two clips of a batch are this machine's
                for place in plan.places:
                    seen[source[loader.request(step, place).clip].name] += 1
    assert seen == Counter(names(open_source(chunks)))
