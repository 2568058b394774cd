"""The tasks, on a model that knows the truth and on one that knows nothing."""

import math

import pytest
import torch

from nas3r.evaluation.inference import Inference
from nas3r.evaluation.planning import Item
from nas3r.evaluation.protocols import ViewSet
from nas3r.evaluation.report import Album
from nas3r.evaluation.tasks.depths import Depths
from nas3r.evaluation.tasks.novel_views import NovelViews
from nas3r.evaluation.tasks.poses import GIVEN, LAST_TARGET, Poses
from nas3r.models import NAS3R, presets
from nas3r.models.inference import infer_with_targets

SIZE = 32
VIEWS = ViewSet((0, 4, 8), (2, 6), 0.6, "large")


@pytest.fixture
def album(tmp_path) -> Album:
    return Album(tmp_path, "000")


def table_row(task, record, table: int, method: str) -> dict:
    records = [{"scene": "a", "tag": "large", "overlap": 0.6, "result": plain_result(record)}]
    found = task.tables(records)[table]
    row = next(r for r in found.rows if r[1] == method)
    return dict(zip([c.name for c in found.columns], row, strict=True))


def plain_result(record):
    from nas3r.evaluation.storage import plain

    return plain(record)


def test_truth_has_perfect_poses(oracle, worlds, album):
    pytest.importorskip("cv2")
    task = Poses(oracle, SIZE, baselines=("identity", "sift", "sift-guess"))
    record = task.run(worlds[0], VIEWS, album)
    row = table_row(task, record, 0, "nas3r")
    assert row["pairs"] == 3
    assert row["no answer"] == 0
    assert row["AUC@5"] > 0.99  # float32 poses: errors below 0.05 degrees
    assert row["focal %"] == pytest.approx(0, abs=1e-3)
    assert row["ATE"] < 1e-4
    pnp = table_row(task, record, 0, "nas3r, PnP")
    assert pnp["AUC@5"] > 0.9  # these points are exact as well; RANSAC stops at 5 px
    assert table_row(task, record, 0, "identity")["t median"] == 90
    assert len(album.rows) == 1
    assert all((album.folder / name).is_file() for _, name in album.rows[0])


def test_truth_has_perfect_depth(oracle, worlds, album):
    task = Depths(oracle, SIZE)
    task.prepare(worlds, [Item(i, worlds[i].name, VIEWS) for i in range(3)])
    record = task.run(worlds[0], VIEWS, album)
    assert record["nas3r"]["median/abs_rel"] == pytest.approx([0, 0, 0], abs=1e-6)
    assert record["nas3r"]["spearman_given_mean"] == pytest.approx([1, 1, 1])
    mean = record["data set's mean depth map"]
    assert max(map(abs, mean["spearman_given_mean"])) < 1e-9
    assert max(mean["median/abs_rel"]) > 0.05
    assert record["constant"]["spearman"] == [0, 0, 0]
    row = table_row(task, record, 0, "nas3r")
    assert row["τ"] == 1
    assert len(album.rows) == 3


def test_mean_map_of_a_single_scene_leaves_out_the_view_set(worlds, tmp_path):
    task = Depths(None, SIZE)
    other = ViewSet((1, 9), (), None, "unknown")
    task.prepare(worlds, [Item(0, worlds[0].name, VIEWS), Item(0, worlds[0].name, other)])
    scene = worlds[0].name
    alone = Depths(None, SIZE)
    alone.prepare(worlds, [Item(0, scene, other)])
    without = task._mean_map(scene, VIEWS)
    nothing = alone._mean_map(scene, other)
    assert torch.equal(nothing, torch.ones(SIZE, SIZE, dtype=torch.float64))
    assert not torch.equal(without, nothing)


def test_truth_renders_better_than_copies(oracle, worlds, album):
    task = NovelViews(oracle, SIZE, align="pose")
    record = task.run(worlds[0], VIEWS, album)
    mean = {name: float(torch.as_tensor(m["psnr"]).mean()) for name, m in record.items()}
    assert mean["nas3r"] > mean["nearest context"] + 1
    assert mean["nas3r"] > mean["mean of contexts"]
    assert mean["nas3r, pose aligned"] >= mean["nas3r"] - 0.1
    assert "LPIPS" not in [c.name for c in task.tables(as_records(record))[0].columns]
    assert len(album.rows) == 1 + len(VIEWS.targets)


def as_records(record):
    return [{"scene": "a", "tag": "large", "overlap": 0.6, "result": plain_result(record)}]


def test_target_equal_to_context_does_not_break_the_mean(worlds, album):
    task = NovelViews(None, SIZE)
    record = task.run(worlds[0], ViewSet((0, 4), (0,), 0.6, "large"), album)
    assert float(record["nearest context"]["psnr"][0]) == 100


def test_lpips_is_measured_when_given(worlds, album):
    task = NovelViews(None, SIZE, lpips=lambda a, b: (a - b).abs().flatten(1).mean(1))
    record = task.run(worlds[0], VIEWS, album)
    row = table_row(task, record, 0, "nearest context")
    images = worlds[0].read([*VIEWS.context, *VIEWS.targets], SIZE, SIZE).images
    context, targets = images[: len(VIEWS.context)], images[len(VIEWS.context) :]
    nearest = [context[(context - t).square().mean((1, 2, 3)).argmin()] for t in targets]
    expected = torch.stack([(a - b).abs().mean() for a, b in zip(nearest, targets)]).mean()
    assert row["LPIPS"] == pytest.approx(expected.item(), rel=1e-5)


def test_models_that_can_be_told_the_intrinsics_are_measured_both_ways(worlds, album):
    pytest.importorskip("cv2")
    torch.manual_seed(0)
    task = Poses(Inference(NAS3R(presets.get("tiny")).eval()), SIZE, baselines=(), pnp=False)
    record = task.run(worlds[0], VIEWS, album)
    assert list(record) == ["nas3r", GIVEN]
    assert not torch.equal(record["nas3r"]["rotation"], record[GIVEN]["rotation"])
    assert "focal" not in record[GIVEN]


def test_published_protocol_counts_the_outer_pair_and_the_targets(worlds, album):
    pytest.importorskip("cv2")
    torch.manual_seed(0)
    model = Inference(NAS3R(presets.get("tiny")).eval(), "published")
    task = Poses(model, SIZE, baselines=("identity",), published=True)
    record = task.run(worlds[0], VIEWS, album)
    assert len(record["nas3r"]["rotation"]) == 1
    rotation, translation, pose = record[LAST_TARGET]["targets"]
    assert pose == max(rotation, translation)
    # Nothing leaks in this model: the pass with a target says the same as the one without.
    assert float(record[LAST_TARGET]["rotation"]) == pytest.approx(float(record["nas3r"]["rotation"]))
    assert [t.title for t in task.tables(as_records(record))][-1].startswith("Pose of the targets")


def test_near_depends_on_the_truth_only_when_published(worlds):
    views = worlds[0].read([0, 4, 8], SIZE, SIZE)
    view_set = ViewSet((0, 4, 8), (), None, "unknown")
    model = NAS3R(presets.get("tiny")).eval()
    assert Inference(model).near(views, view_set) == 0.01
    centers = views.cameras.centers[0]
    baseline = float((centers[0] - centers[2]).norm())
    assert math.isclose(Inference(model, "published").near(views, view_set), 0.02 / baseline)


def test_one_pass_per_target_finds_the_same_as_one_for_all(worlds):
    """The fast path for models whose context cannot depend on a target."""
    views = worlds[0].read([0, 4, 8, 2, 6], SIZE, SIZE)
    inference = Inference(NAS3R(presets.get("tiny")).eval())
    together = inference.locate(views, VIEWS)
    for t, view in enumerate(together):
        context, target = views.images[None, :3], views.images[None, [3 + t]]
        with torch.no_grad():
            alone = infer_with_targets(inference.model, context, target)
        # Batched and single attention round differently in float32.
        torch.testing.assert_close(
            view.camera.world_from_camera, alone.target_cameras.world_from_camera, atol=1e-5, rtol=1e-4
        )
