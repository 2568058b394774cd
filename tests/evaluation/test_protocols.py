"""Choice of views, from an index file and from measured overlap."""

import json

import pytest
import torch

from nas3r.data.posed import PosedViews
from nas3r.evaluation.overlap import pairwise_overlap, plane_distances
from nas3r.evaluation.protocols import (
    ViewSet,
    overlap_class,
    read_index,
    select_view_sets,
    view_set_from_index,
)
from nas3r.geometry import Cameras


def facing_cameras(xs: list[float], distance: float = 2.0) -> Cameras:
    """Cameras in a row, looking at a wall at z = distance; each sees as wide as it is far."""
    poses = torch.eye(4).repeat(len(xs), 1, 1)
    poses[:, 0, 3] = torch.tensor(xs)
    k = torch.tensor([[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]])
    return Cameras(poses[None], k.expand(1, len(xs), 3, 3))


def wall(xs: list[float], distance: float = 2.0) -> PosedViews:
    depth = torch.full((len(xs), 32, 32), distance)
    return PosedViews("wall", torch.zeros(len(xs), 3, 32, 32), facing_cameras(xs), depth)


def test_overlap_of_a_wall_is_exact():
    # Each camera sees 2 units of the wall; moved by 1 it shares half of it, moved by 3 nothing.
    overlap = pairwise_overlap(wall([0.0, 1.0, 3.0]))
    torch.testing.assert_close(overlap, torch.tensor([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]))


def test_hidden_points_do_not_overlap():
    views = wall([0.0, 0.5])
    assert views.depth is not None
    views.depth[1] = 1.0  # something stands before the wall in the second view
    assert float(pairwise_overlap(views)[0, 1]) == 0


def test_overlap_without_depth_uses_where_the_axes_meet():
    # Two cameras 90 degrees apart on a circle of radius 3 around the origin, looking at it.
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[0, 2, 3] = -3.0
    poses[1, :3, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    poses[1, 0, 3] = -3.0
    k = torch.tensor([[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]).expand(1, 2, 3, 3)
    distances = plane_distances(Cameras(poses[None], k))
    # The ridge pulls the point towards the cameras by about a thousandth.
    torch.testing.assert_close(distances, torch.tensor([3.0, 3.0]), rtol=2e-3, atol=0)


def test_parallel_axes_fall_back_to_the_spread():
    distances = plane_distances(facing_cameras([-1.0, 1.0]))
    torch.testing.assert_close(distances, torch.ones(2))


def test_published_tags(reference_folder):
    stored = json.loads((reference_folder / "modules" / "schedule_and_tags.json").read_text())
    for overlap, tag in stored["overlap_tags"]:
        assert overlap_class(overlap, "published") == tag
    assert overlap_class(0.04) == "tiny"
    assert overlap_class(0.9) == "very large"
    assert overlap_class(0.96) == "ignore"
    assert overlap_class(None) == "unknown"


def test_published_index_and_its_flaws(shared_reference):
    index = read_index(shared_reference / "indices" / "evaluation_index_re10k.json")
    entries = {key: entry for key, entry in index.items() if entry is not None}
    assert (len(index), len(entries)) == (7194, 5601)
    published = {k: view_set_from_index(k, e, None, "published") for k, e in entries.items()}
    corrected = {k: view_set_from_index(k, e, None) for k, e in entries.items()}
    tags = [v.tag for v in published.values() if v]
    assert [tags.count(t) for t in ("small", "medium", "large")] == [1403, 2568, 1630]
    assert [v.tag for v in corrected.values() if v].count("tiny") == 3
    dropped = {k: len(published[k].targets) - len(v.targets) if v else 3 for k, v in corrected.items()}
    assert sum(dropped.values()) == 447
    assert sum(n > 0 for n in dropped.values()) == 434


def test_extra_context_views_from_an_index():
    entry = {"context": [10, 20], "target": [15, 12], "overlap": "large"}
    assert view_set_from_index("a", entry, 2) == ViewSet((10, 20), (15, 12), 0.75, "large")
    three = view_set_from_index("a", entry, 3)
    assert three is not None
    assert three.context == (10, 16, 20)
    assert view_set_from_index("a", {**entry, "target": [12]}, 3, "published").context == (10, 15, 20)
    many = view_set_from_index("a", entry, 6, "published")
    assert many == view_set_from_index("a", entry, 6, "published")
    assert (many.context[0], many.context[-1]) == (10, 20)
    assert len(set(many.context)) == 6
    assert not set(many.context) & {15, 12}
    with pytest.raises(ValueError, match="only 7 frames"):
        view_set_from_index("a", entry, 10)


def test_reversed_context_keeps_its_order():
    entry = {"context": [33, 31], "target": [24]}
    assert view_set_from_index("scan", entry, 3).context == (33, 32, 31)


def test_targets_in_the_context():
    entry = {"context": [1, 5], "target": [1, 3, 5]}
    assert view_set_from_index("a", entry, None).targets == (3,)
    assert view_set_from_index("a", entry, None, "published").targets == (1, 3, 5)
    assert view_set_from_index("a", {**entry, "target": [5]}, None) is None


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"a": {"context": [1], "target": [2]}}', '{"a": {"context": 3}}']
)
def test_damaged_index_is_named(tmp_path, text):
    path = tmp_path / "index.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="index"):
        read_index(path)


def row_of_views(count: int) -> torch.Tensor:
    """Overlap that falls linearly with the distance of the frames."""
    t = torch.arange(count, dtype=torch.float32)
    return (1 - (t[:, None] - t[None]).abs() / 20).clamp_min(0)


def test_selected_sets_have_what_was_asked_for():
    overlap = row_of_views(40)
    sets = select_view_sets(overlap, views=4, targets=3, sets_per_class=5)
    assert sets == select_view_sets(overlap, views=4, targets=3, sets_per_class=5)
    assert [s.tag for s in sets[:15]] == ["small"] * 5 + ["medium"] * 5 + ["large"] * 5
    for s in sets:
        first, *_, last = s.context
        assert s.context == tuple(sorted(s.context))
        assert len(set(s.context) | set(s.targets)) == 4 + len(s.targets)
        assert all(first < t < last for t in s.targets)
        assert overlap_class(float(overlap[first, last])) == s.tag


def test_selection_honours_usable_views():
    usable = torch.zeros(40, dtype=torch.bool)
    usable[::5] = True
    sets = select_view_sets(row_of_views(40), targets=0, sets_per_class=50, usable=usable)
    assert sets
    assert all(i % 5 == 0 for s in sets for i in s.context)
    assert all(s.targets == () for s in sets)


def test_narrow_pair_is_still_used():
    assert [s.context for s in select_view_sets(torch.tensor([[1.0, 0.97], [0.97, 1.0]]), targets=0)] == [
        (0, 1)
    ]
    assert select_view_sets(torch.tensor([[1.0, 0.97], [0.97, 1.0]]), targets=3) == []
    assert select_view_sets(torch.eye(3), targets=0) == []
