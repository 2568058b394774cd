"""Batches: deterministic, addressable by step, the same however many processes share them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from numbered_clips import numbered, read_number
from PIL import Image
from torch import Tensor

from nas3r.data.clips import ViewBatch
from nas3r.data.loaders import BatchPlan, ClipLoader
from nas3r.data.loaders.clips import fit
from nas3r.data.order import ShuffledOrder, WindowedOrder
from nas3r.data.sampling import GapSchedule, MotionSchedule, ViewDropout, ViewSampler
from nas3r.data.sources.joined import JoinedSource
from nas3r.data.synthetic import SyntheticClips

SAMPLER = ViewSampler(GapSchedule((3, 5), (4, 9), 100), context_views=3, target_views=2)


class MemoryClip:
    def __init__(self, number: int, length: int) -> None:
        self.name, self.number, self.length = f"clip{number}", number, length

    def __len__(self) -> int:
        return self.length

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        return torch.from_numpy(np.stack([numbered(self.number, i) for i in indices])).permute(0, 3, 1, 2)


class MemorySource:
    """Clips of different lengths; one of them cannot be read."""

    def __init__(self, lengths: Sequence[int] = (12, 20, 3, 31, 15, 20), broken: int | None = None) -> None:
        self.lengths, self.broken = lengths, broken

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> MemoryClip:
        if index == self.broken:
            raise ValueError(f"clip{index}: damaged")
        return MemoryClip(index, self.lengths[index])


def make(source=None, *, height: int = 16, width: int = 16, **options) -> ClipLoader:
    plan = BatchPlan(SAMPLER, **({"batch_size": 4, "seed": 5, "dropout": ViewDropout()} | options))
    return ClipLoader(MemorySource() if source is None else source, plan, height, width)


def assert_equal(a: ViewBatch, b: ViewBatch) -> None:
    assert torch.equal(a.context, b.context)
    assert torch.equal(a.target, b.target)


def test_a_batch_has_images_and_no_labels() -> None:
    assert [field.name for field in fields(ViewBatch)] == ["context", "target", "origin"]
    batch = make(dropout=None).batch(0)
    assert batch.context.shape == (4, 3, 3, 16, 16)
    assert batch.target.shape == (4, 2, 3, 16, 16)
    assert batch.context.dtype == torch.float32
    assert 0 <= batch.context.min() <= batch.context.max() <= 1
    assert batch.context.is_contiguous()


def test_views_of_a_sample_come_from_one_clip_and_follow_the_schedule() -> None:
    for step in (0, 50, 300):
        low, high = SAMPLER.schedule.bounds(step)
        batch = make(dropout=None).batch(step)
        for context, target in zip(batch.context, batch.target):
            numbers = [read_number(view) for view in (*context, *target)]
            assert len({clip for clip, _ in numbers}) == 1
            frames = [frame for _, frame in numbers]
            assert low <= frames[2] - frames[0] <= high
            assert len(set(frames)) == 5


def test_any_step_can_be_asked_for_in_any_order_and_thread() -> None:
    loader = make()
    expected = [loader.batch(step) for step in range(12)]
    fresh = make()
    with ThreadPoolExecutor(4) as pool:
        for step, batch in zip(reversed(range(12)), pool.map(fresh.batch, reversed(range(12)))):
            assert_equal(batch, expected[step])
    assert not torch.equal(expected[0].context[:, 0], make(seed=6).batch(0).context[:, 0])


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_global_batch(world_size: int) -> None:
    for step in range(6):
        whole = make().batch(step)
        parts = [make(rank=rank, world_size=world_size).batch(step) for rank in range(world_size)]
        joined = ViewBatch(torch.cat([p.context for p in parts]), torch.cat([p.target for p in parts]))
        assert_equal(joined, whole)


def test_dropout_varies_the_number_of_views() -> None:
    shapes = {(b.context.shape[1], b.target.shape[1]) for b in map(make().batch, range(40))}
    assert shapes == {(2, 1), (2, 2), (3, 1), (3, 2)}


def test_half_of_the_samples_are_mirrored_as_a_whole() -> None:
    loader = make(dropout=None, height=24, width=32)
    falls = []
    for step in range(20):
        batch = loader.batch(step)
        views = torch.cat([batch.context, batch.target], dim=1)
        right_is_darker = views[:, :, 2, 12, 0] > views[:, :, 2, 12, -1]
        assert (right_is_darker == right_is_darker[:, :1]).all()
        falls += right_is_darker[:, 0].tolist()
    # 80 coin flips: standard deviation 4.5
    assert abs(sum(falls) - 40) < 19
    plain = make(dropout=None, flip=False, height=24, width=32).batch(0).context
    assert (plain[:, :, 2, 12, 0] > plain[:, :, 2, 12, -1]).all()


def test_every_clip_is_seen_equally_often() -> None:
    source = MemorySource([20] * 6)
    loader = make(source)
    seen = [loader.request(step, place).clip for step in range(6) for place in range(4)]
    for epoch in range(4):
        assert sorted(seen[6 * epoch : 6 * epoch + 6]) == list(range(6))


def test_short_and_damaged_clips_are_replaced_and_counted() -> None:
    loader = make(MemorySource(broken=4))
    for step in range(20):
        batch = loader.batch(step)
        numbers = {read_number(view)[0] for view in batch.context[:, 0]}
        assert not numbers & {2, 4}
    assert loader.rejected["clip4: damaged"] > 0
    assert loader.rejected["too short or too still for the gap"] > 0
    assert_equal(make(MemorySource(broken=4)).batch(7), loader.batch(7))


def test_no_usable_clip_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"step 0, where the gap is 3 to 5: too short"):
        make(MemorySource([3, 3])).batch(0)
    with pytest.raises(ValueError, match="no clip"):
        make(MemorySource([]))
    with pytest.raises(ValueError, match="share evenly"):
        make(world_size=3)


class PanningClip:
    """A camera that pans over a fixed pattern by a tenth of the image width per frame."""

    name = "pan"
    pattern = np.asarray(Image.effect_noise((64, 32), 100).resize((640, 320), Image.Resampling.BICUBIC))

    def __len__(self) -> int:
        return 20

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        frames = [self.pattern[60:220, 20 * i : 20 * i + 200] for i in indices]
        return torch.from_numpy(np.stack(frames))[:, None].expand(-1, 3, -1, -1)


class RecordedClip(PanningClip):
    travel = np.arange(20) * 0.15


@pytest.mark.parametrize(("clip", "gap"), [(PanningClip(), 5), (RecordedClip(), 3)])
def test_motion_schedule_uses_the_recorded_or_the_measured_motion(clip: PanningClip, gap: int) -> None:
    sampler = ViewSampler(MotionSchedule((0.42, 0.42), (0.42, 0.42), 0))
    loader = ClipLoader([clip], BatchPlan(sampler, batch_size=2, seed=0), 8, 8)
    request = loader.request(0, 0)
    assert request.frames[1] - request.frames[0] == gap


class GeneratedSource(MemorySource):
    """Makes the frames of a whole batch at once."""

    def read_batch(self, clips: Sequence[int], frames: Sequence[Sequence[int]]) -> Tensor:
        return torch.stack([fit(self[clip].read(chosen), 16, 16) for clip, chosen in zip(clips, frames)])


def test_generated_batches_are_visited_in_order_and_treated_alike() -> None:
    lengths = [20] * 8
    loader = make(GeneratedSource(lengths))
    assert [loader.request(1, place).clip for place in range(4)] == [4, 5, 6, 7]
    batch = loader.batch(1)
    numbers = [read_number(view) for view in batch.context[:, 0]]
    assert numbers == [(r.clip, r.frames[0]) for r in (loader.request(1, place) for place in range(4))]
    halves = [make(GeneratedSource(lengths), rank=rank, world_size=2).batch(1) for rank in (0, 1)]
    assert torch.equal(torch.cat([half.context for half in halves]), batch.context)
    with pytest.raises(ValueError, match="16, 16"):
        make(GeneratedSource(lengths), height=32).batch(0)


@pytest.mark.slow  # compiles the renderer of the worlds
def test_synthetic_worlds_are_shared_between_processes_too() -> None:
    def worlds() -> SyntheticClips:
        return SyntheticClips(seed=1, height=16, width=16, length=64)

    batch = make(worlds()).batch(3)
    assert batch.context.shape[0] == 4
    halves = [make(worlds(), rank=rank, world_size=2).batch(3) for rank in (0, 1)]
    assert torch.equal(torch.cat([half.context for half in halves]), batch.context)


def test_fit_is_the_identity_at_the_right_size() -> None:
    image = torch.from_numpy(numbered(1, 1, 16, 16)).permute(2, 0, 1)[None]
    assert torch.equal(fit(image, 16, 16), image)
    assert torch.equal(fit(image, 16, 8), image[..., 4:12])  # covers it already: nothing is scaled


def test_fit_scales_to_cover_and_crops_in_the_middle() -> None:
    image = torch.from_numpy(numbered(1, 1, 16, 16)).permute(2, 0, 1)[None]
    pillow = Image.fromarray(numbered(1, 1, 16, 16)).resize((8, 8), Image.Resampling.LANCZOS)
    expected = torch.from_numpy(np.array(pillow)[:, 2:6]).permute(2, 0, 1)[None]
    assert torch.equal(fit(image, 8, 4), expected)


def test_orders_visit_everything_once_an_epoch() -> None:
    for order in (ShuffledOrder(10), WindowedOrder([3, 0, 5, 2], window=2)):
        for epoch in range(3):
            visited = [order.index_at(position, 7) for position in range(10 * epoch, 10 * epoch + 10)]
            assert sorted(visited) == list(range(10))


def test_windowed_order_names_the_groups_it_needs() -> None:
    order = WindowedOrder([2, 3, 4, 1, 2], window=2)
    for position in range(36):
        groups = order.groups_from(position, seed=1)
        assert order.group_of(order.index_at(position, 1)) in groups[:2]
        assert len(groups) in (3, 4)
    assert order.group_of(2) == 1
    assert order.place_in_group(4) == 2
    with pytest.raises(ValueError, match="window"):
        WindowedOrder([], window=1)


def mixed(broken: int | None = None, **options) -> ClipLoader:
    """Two data sets, 2 to 1; the second's frames lie closer."""
    source = JoinedSource([MemorySource((20, 25, 30), broken=broken), MemorySource((12, 20))], shares=[2, 1])
    parts = [SAMPLER, replace(SAMPLER, schedule=GapSchedule((5, 5), (5, 5), 0))]
    options = {"batch_size": 6, "seed": 5, "flip": False} | options
    return ClipLoader(source, BatchPlan(SAMPLER, parts=parts, **options), 16, 16)


def test_a_mixture_keeps_its_weights_and_its_gaps():
    loader = mixed(broken=1)
    longest = [0, 0]
    for step in range(100, 130):
        batch = loader.batch(step)
        assert sorted(batch.origin) == [0, 0, 0, 0, 1, 1]  # although a clip of the first cannot be read
        for place, origin in enumerate(batch.origin):
            request = loader.request(step, place)
            assert loader.source.origin(request.clip) == origin  # type: ignore[attr-defined]
            first, last = request.frames[0], request.frames[2]
            longest[origin] = max(longest[origin], last - first)
    assert longest == [9, 5]
    assert any("clip1: damaged" in reason for reason in loader.rejected)


def test_a_mixture_is_the_same_from_any_step_in_any_number_of_processes():
    whole = [mixed().batch(step) for step in range(4)]
    for step in (3, 1):
        parts = [mixed(rank=rank, world_size=2).batch(step) for rank in range(2)]
        assert parts[0].origin + parts[1].origin == whole[step].origin
        assert torch.equal(torch.cat([p.context for p in parts]), whole[step].context)


def test_without_a_mixture_a_batch_names_no_data_set():
    assert make().batch(0).origin == ()
