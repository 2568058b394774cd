"""Views that are broken cost themselves; indices keep meaning the frames they were made for."""

import json

import numpy as np
import pytest
import torch

from miniatures import chunk_entry, world_views, write_blended
from nas3r.data.posed_sources import open_posed
from nas3r.evaluation.planning import Selection, make_plan
from nas3r.evaluation.provenance import Provenance
from nas3r.evaluation.runner import evaluate
from nas3r.evaluation.tasks.novel_views import NovelViews
from nas3r.evaluation.tasks.poses import Poses

PROVENANCE = Provenance("nas3r evaluate ...", "chunks", {}, hardware="a machine")


@pytest.fixture
def views():
    return world_views(6, range(8), 24, 24)


def write(folder, views, broken: int, index: dict):
    folder.mkdir()
    entry = chunk_entry("abc", views)
    if broken >= 0:
        entry["cameras"][broken, 6:] = torch.nan
    torch.save([entry], folder / "000000.torch")
    (folder / "index.json").write_text(json.dumps({"abc": "000000.torch"}))
    (folder / "evaluation_index.json").write_text(json.dumps({"abc": index}))
    return Selection(index=folder / "evaluation_index.json")


def test_an_index_means_the_same_frames_where_one_before_them_is_broken(views, tmp_path):
    entry = {"context": [2, 7], "target": [4, 5], "overlap": 0.5}
    results = []
    for name, broken in (("whole", -1), ("broken", 1)):
        selection = write(tmp_path / name, views, broken, entry)
        source = open_posed(tmp_path / name)
        results.append(
            evaluate(NovelViews(None, 24), source, selection, PROVENANCE, tmp_path / f"{name}-out")
        )
    whole, broken = results
    assert broken["records"][0]["result"] == whole["records"][0]["result"]
    assert broken["records"][0]["context"] == [2, 7]
    assert whole["skipped"] == []
    assert [s["reason"].partition(":")[0] for s in broken["skipped"]] == ["view 1 is left out"]
    assert "view 1 is left out" in (tmp_path / "broken-out" / "results.md").read_text()


def test_a_broken_target_is_dropped_and_named(views, tmp_path):
    selection = write(tmp_path / "data", views, 4, {"context": [2, 7], "target": [4, 5], "overlap": 0.5})
    results = evaluate(
        NovelViews(None, 24), open_posed(tmp_path / "data"), selection, PROVENANCE, tmp_path / "o"
    )
    assert results["records"][0]["targets"] == [5]
    assert any("are evaluated without: view 4" in s["reason"] for s in results["skipped"])


def test_a_broken_context_view_costs_its_view_set(views, tmp_path):
    selection = write(tmp_path / "data", views, 7, {"context": [2, 7], "target": [4], "overlap": 0.5})
    with pytest.raises(ValueError, match="view 7 is left out"):
        evaluate(NovelViews(None, 24), open_posed(tmp_path / "data"), selection, PROVENANCE, tmp_path / "o")


def test_further_context_views_are_whole_ones(views, tmp_path):
    write(tmp_path / "data", views, 4, {"context": [1, 7], "target": [3], "overlap": 0.5})
    selection = Selection(index=tmp_path / "data" / "evaluation_index.json", views=5)
    plan = make_plan(open_posed(tmp_path / "data"), selection, needs_targets=True, needs_depth=False)
    assert plan.items[0].view_set.context == (1, 2, 5, 6, 7)
    with pytest.raises(ValueError, match="only 3 frames between 1 and 7"):
        make_plan(
            open_posed(tmp_path / "data"),
            Selection(index=selection.index, views=7),
            needs_targets=True,
            needs_depth=False,
        )


def test_an_image_that_cannot_be_read_leaves_the_rest_of_the_scene(views, tmp_path, caplog):
    (tmp_path / "data").mkdir()
    entry = chunk_entry("abc", views)
    entry["images"][2] = entry["images"][2][:-100].clone()  # its header is whole
    torch.save([entry], tmp_path / "data" / "000000.torch")
    plan = make_plan(open_posed(tmp_path / "data"), Selection(), needs_targets=False, needs_depth=False)
    used = {v for item in plan.items for v in item.view_set.context}
    assert used
    assert 2 not in used
    assert "view 2 cannot be read" in str(plan.skipped[0])
    assert "1 of 8 views cannot be read" in caplog.text


def test_pairs_that_come_with_the_data(views, tmp_path):
    write_blended(tmp_path / "scene", views)
    (tmp_path / "scene" / "rendered_depth_maps" / "00000003.pfm").unlink()
    selection = Selection(pairs=True, sets_per_class=4, views=3)
    plan = make_plan(open_posed(tmp_path), selection, needs_targets=False, needs_depth=True)
    sets = [item.view_set.context for item in plan.items]
    assert len(sets) == 4
    for first, *others in sets:
        numbers = [n for n in range(8) if n not in (first, 3)]  # 3 has no depth
        assert others == sorted(numbers, key=lambda n: abs(n - first))[:2]
    task = Poses(None, 24, baselines=("identity",))
    results = evaluate(task, open_posed(tmp_path), selection, PROVENANCE, tmp_path / "out")
    assert np.isfinite(results["tables"][0]["rows"][0][4])
