"""Batches: pools, streams of worlds, labels, prefetching, curricula by the clock."""

import shutil
import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from nas3r.data.loaders import BatchPlan, LabelledLoader, PooledLoader
from nas3r.data.loaders.labelled import mirrored
from nas3r.data.loaders.pool import GROUP
from nas3r.data.posed import PosedSource
from nas3r.data.sampling import GapSchedule, MotionSchedule, ViewDropout, ViewSampler
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.data.synthetic.streams import WINDOW, LabelledWorlds, WorldStream
from nas3r.geometry import unproject_depth
from nas3r.training.config import DataConfig, MixturePart, ScheduleConfig
from nas3r.training.distributed import World
from nas3r.training.log import read_log
from nas3r.training.objectives import Supervised
from nas3r.training.pace import Pace, paced
from nas3r.training.prefetch import Prefetcher
from nas3r.training.reporting import distinct_names
from nas3r.training.run import run_training
from nas3r.training.sources import open_loader, open_worlds

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
SAMPLER = ViewSampler(GapSchedule((2, 2), (3, 4), 10))
POOLED = DataConfig(
    height=8,
    width=8,
    batch_size=4,
    sampler=SAMPLER,
    synthetic=SyntheticConfig(frames=6, supersampling=1),
    pool=2 * GROUP,
    reuse=1,
)


def _plan(data: DataConfig, seed: int = 0, world: World = ALONE) -> BatchPlan:
    share = {"rank": world.rank, "world_size": world.size}
    return BatchPlan(data.sampler, batch_size=data.batch_size, seed=seed, dropout=data.dropout, **share)


def _pooled(data: DataConfig, seed: int = 0, world: World = ALONE) -> PooledLoader:
    clips = open_worlds(data, seed, world.device)
    return PooledLoader(clips, _plan(data, seed, world), pool=data.pool, reuse=data.reuse)


def _labelled(source: PosedSource, data: DataConfig, world: World = ALONE) -> LabelledLoader:
    return LabelledLoader(source, _plan(data, 0, world), data.height, data.width)


def _equal(a, b) -> bool:
    return torch.equal(a.context, b.context) and torch.equal(a.target, b.target)


def test_pool_gives_the_same_batch_whenever_it_is_asked():
    loader = _pooled(POOLED, 3, ALONE)
    far = GROUP // POOLED.batch_size  # a step at which a group of clips was replaced
    first, later = loader.batch(0), loader.batch(far)
    assert loader.groups_at(0) == range(2)
    assert loader.groups_at(far) == range(1, 3)
    assert first.context.shape == (4, 2, 3, 8, 8)
    assert first.target.shape == (4, 1, 3, 8, 8)
    assert 0 <= first.context.min() <= first.context.max() <= 1
    fresh = _pooled(POOLED, 3, ALONE)
    assert _equal(fresh.batch(far), later)
    assert _equal(fresh.batch(0), first)  # backwards too
    assert not _equal(_pooled(POOLED, 4, ALONE).batch(0), first)


def test_pooled_batches_are_frames_of_the_clips():
    loader = _pooled(POOLED, 3, ALONE)
    clips = open_worlds(POOLED, 3, CPU)
    batch = loader.batch(0)
    for place in range(4):
        request = loader._request(0, place)  # at step 0 the clips stand at their own places
        images = clips[request.clip].read(request.frames).float() / 255
        images = images.flip(-1) if request.flip else images
        assert torch.equal(torch.cat([batch.context[place], batch.target[place]]), images)


def test_processes_share_a_pooled_batch():
    whole = _pooled(POOLED, 3, ALONE).batch(5)
    parts = [_pooled(POOLED, 3, World(rank, 2, CPU)).batch(5) for rank in range(2)]
    assert torch.equal(torch.cat([p.context for p in parts]), whole.context)


def test_pool_drops_views():
    data = replace(POOLED, sampler=replace(SAMPLER, context_views=3, target_views=1), dropout=ViewDropout())
    loader = _pooled(data, 0, ALONE)
    whole = _pooled(replace(data, dropout=None), 0, ALONE)
    seen = set()
    for step in range(8):
        context, target = ViewDropout().kept(3, 1, 0, step)
        assert torch.equal(loader.batch(step).context, whole.batch(step).context[:, context])
        assert torch.equal(loader.batch(step).target, whole.batch(step).target[:, target])
        seen.add(context)
    assert seen == {(0, 2), (0, 1, 2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": 100}, "multiple of 64"),
        ({"sampler": ViewSampler(GapSchedule((2, 2), (3, 6), 10))}, "up to 6"),
        ({"sampler": ViewSampler(MotionSchedule((0.0, 0.1), (0.1, 0.2), 10))}, "gaps in frames"),
    ],
)
def test_impossible_pools_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        _pooled(replace(POOLED, **change), 0, ALONE)
    with pytest.raises(ValueError, match="3 processes"):
        _pooled(POOLED, 0, World(0, 3, CPU))


def test_world_stream_visits_each_window_several_times():
    class Clips:
        def __len__(self) -> int:
            return 10**6

    stream = WorldStream(Clips(), reuse=3)  # type: ignore[arg-type]
    assert len(stream) == 10**6
    first = Counter(stream.index_at(i, 7) for i in range(3 * WINDOW))
    assert first == dict.fromkeys(range(WINDOW), 3)
    assert stream.index_at(3 * WINDOW, 7) >= WINDOW
    assert [stream.index_at(i, 7) for i in range(9)] != [stream.index_at(i, 8) for i in range(9)]


def test_synthetic_batches_repeat_and_are_shared(config):
    data = replace(config.data, height=8, width=8, sampler=SAMPLER, synthetic=POOLED.synthetic)
    config = replace(config, data=data)
    whole = open_loader(config, ALONE, Pace()).batch(2)
    parts = [open_loader(config, World(rank, 2, CPU), Pace()).batch(2) for rank in range(2)]
    assert whole.context.shape == (4, 2, 3, 8, 8)
    assert torch.equal(torch.cat([p.target for p in parts]), whole.target)


def test_labelled_batches_hold_what_the_scenes_say():
    data = replace(POOLED, sampler=replace(SAMPLER, target_views=1))
    source = SyntheticScenes(0, data.synthetic, length=8)
    loader = _labelled(source, data)
    batch = loader.batch(0)
    for place in range(4):
        request, scene = loader.plan.draw(0, place, loader._choose, source.__getitem__, lambda *found: found)
        views = scene.read(request.frames, 8, 8)
        views = mirrored(views) if request.flip else views
        assert torch.equal(torch.cat([batch.context[place], batch.target[place]]), views.images)
        assert torch.equal(batch.cameras.world_from_camera[place], views.cameras.world_from_camera[0])
        assert torch.equal(batch.cameras.intrinsics[place], views.cameras.intrinsics[0])
        assert torch.equal(batch.depth[place], views.depth[:2])
    again = _labelled(source, data, World(1, 2, CPU)).batch(0)
    assert torch.equal(again.context, batch.context[2:])
    assert torch.equal(again.cameras.world_from_camera, batch.cameras.world_from_camera[2:])


def test_labelled_worlds_are_the_ones_of_self_supervised_training(config):
    data = replace(config.data, height=8, width=8, sampler=SAMPLER, synthetic=POOLED.synthetic)
    pixels = open_loader(replace(config, data=data), ALONE, Pace()).batch(1)
    labelled = open_loader(replace(config, data=data, objective=Supervised()), ALONE, Pace()).batch(1)
    assert isinstance(LabelledWorlds(0, data.synthetic, 4), PosedSource)
    # One side went through bytes: at most half a level of 255 apart.
    assert (pixels.context - labelled.context).abs().max() <= 0.501 / 255
    assert (pixels.target - labelled.target).abs().max() <= 0.501 / 255


def test_mirrored_scenes_are_seen_by_mirrored_cameras():
    views = SyntheticScenes(0, POOLED.synthetic, length=1)[0].read([0, 3], 16, 16)
    assert views.depth is not None
    mirror = mirrored(views)
    assert mirror.depth is not None
    points = unproject_depth(views.cameras, views.depth[None])[0]
    points_mirrored = unproject_depth(mirror.cameras, mirror.depth[None])[0]
    expected = points.flip(-2) * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(points_mirrored, expected, rtol=1e-4, atol=1e-4)  # float32, metres
    assert torch.equal(mirror.images, views.images.flip(-1))


def test_unreadable_scenes_are_counted_and_replaced():
    class Broken(SyntheticScenes):
        def __getitem__(self, index: int):
            if index % 2:
                raise ValueError("damaged file")
            return super().__getitem__(index)

    source = Broken(0, POOLED.synthetic, length=6)
    loader = _labelled(source, POOLED)
    whole = [source[i].read([0], 8, 8).cameras.intrinsics[0, 0] for i in (0, 2, 4)]
    for step in range(3):
        for k in loader.batch(step).cameras.intrinsics[:, 0]:
            assert any(torch.equal(k, of_scene) for of_scene in whole)
    assert loader.rejected["damaged file"] > 0


def test_labelled_loader_names_scenes_without_room():
    data = replace(POOLED, sampler=ViewSampler(GapSchedule((9, 9), (9, 9), 0)))
    with pytest.raises(ValueError, match="the gap is 9 to 9: too short"):
        _labelled(SyntheticScenes(0, data.synthetic, length=2), data).batch(0)


class Counting:
    def __init__(self) -> None:
        self.asked: list[int] = []
        self.lock = threading.Lock()

    def batch(self, step: int) -> int:
        with self.lock:
            self.asked.append(step)
        if step == 13:
            raise ValueError("no such clip")
        return step * 10


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetching_changes_nothing_but_the_time(workers):
    loader = Counting()
    with Prefetcher(loader, workers, ahead=2, last=9) as batches:
        assert [batches.batch(s) for s in range(9)] == [s * 10 for s in range(9)]
    assert sorted(loader.asked) == list(range(9))  # each once, none beyond the last


def test_prefetching_survives_jumps_and_passes_errors_on():
    loader = Counting()
    with Prefetcher(loader, 1, ahead=1) as batches:
        assert batches.batch(3) == 30
        assert batches.batch(10) == 100
        assert batches.batch(4) == 40
        with pytest.raises(ValueError, match="no such clip"):
            batches.batch(13)


@pytest.mark.parametrize(
    "schedule", [GapSchedule((2, 3), (10, 20), 100), MotionSchedule((0.0, 0.1), (0.5, 1.0), 100)]
)
def test_paced_curricula_follow_the_clock(schedule):
    pace = Pace()
    sampler = paced(ViewSampler(schedule), pace)
    assert sampler.needs_travel == ViewSampler(schedule).needs_travel
    for nominal in (0, 50, 200):
        pace.step = nominal
        assert sampler.schedule.bounds(12345) == schedule.bounds(nominal)


def test_runs_with_a_budget_get_a_paced_curriculum(config):
    pace = Pace()
    data = replace(config.data, height=8, width=8, sampler=SAMPLER, synthetic=POOLED.synthetic)
    config = replace(config, data=data, schedule=ScheduleConfig(minutes=1.0))
    loader = open_loader(config, ALONE, pace)
    pace.step = 10
    assert loader.plan.sampler.schedule.bounds(0) == (3, 4)  # type: ignore[attr-defined]


def test_a_mixture_trains_resumes_and_is_logged_by_data_set(config, run, tmp_path):
    rng = np.random.default_rng(0)
    for name, brightness, clips in (("RE10K/train", 60, 2), ("DL3DV/train", 160, 3)):
        for clip in range(clips):
            folder = tmp_path / name / f"clip{clip}"
            folder.mkdir(parents=True)
            for frame in range(6):
                pixels = rng.integers(brightness, brightness + 60, (16, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{frame}.png")
    paths = tuple(str(tmp_path / name) for name in ("RE10K/train", "DL3DV/train"))
    data = replace(
        config.data, kind="clips", paths=paths, mixture=(MixturePart(3.0), MixturePart(1.0)), sampler=SAMPLER,
        workers=2,
    )  # fmt: skip
    config = replace(config, data=data, schedule=ScheduleConfig(steps=8, warmup_steps=1))
    config = replace(config, runtime=replace(config.runtime, log_every=2, checkpoint_every=4))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run_training(config, run, world=ALONE)
    lines = [line for line in read_log(run) if line["kind"] == "train"]
    shutil.rmtree(run / "checkpoints" / "step_000000008")
    run_training(config, run, resume=True, world=ALONE)
    torch.set_num_threads(threads)
    assert [line["loss"] for line in read_log(run)] == [line["loss"] for line in lines]
    for line in lines:
        assert line["share RE10K/train"] == 0.75
        assert line["share DL3DV/train"] == 0.25
        parts = 0.75 * line["psnr RE10K/train"] + 0.25 * line["psnr DL3DV/train"]
        assert parts == pytest.approx(line["psnr"], abs=1e-3)  # of decibels; logged with six digits


def test_names_of_data_sets_are_as_short_as_they_can_be():
    assert distinct_names(["/data/re10k", "/data/dl3dv"]) == ["re10k", "dl3dv"]
    assert distinct_names(["/a/x/train", "/a/y/train"]) == ["x/train", "y/train"]
    assert distinct_names(["a", "a"]) == ["a", "a"]
