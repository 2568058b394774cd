"""Interruption, damage and the files that come out."""

import json
from itertools import combinations

import pytest
import torch

from nas3r.data.synthetic import SyntheticScenes
from nas3r.evaluation.inference import Inference
from nas3r.evaluation.planning import Selection
from nas3r.evaluation.provenance import Provenance, describe_weights
from nas3r.evaluation.runner import evaluate
from nas3r.evaluation.tasks.novel_views import NovelViews
from nas3r.evaluation.tasks.poses import Poses
from nas3r.geometry import rotation_angle
from nas3r.models import NAS3R, load, presets, save

PROVENANCE = Provenance("nas3r evaluate ...", "worlds", {"name": "tiny"}, hardware="a machine")
FEW = Selection(sets_per_class=1, targets=1)


class Source:
    """Scenes of which some cannot be read, and one can interrupt the run."""

    def __init__(
        self, scenes: SyntheticScenes, damaged: tuple[int, ...] = (), interrupt_at: int = -1
    ) -> None:
        self.scenes, self.damaged, self.interrupt_at = scenes, damaged, interrupt_at
        self.planned = False

    def __len__(self) -> int:
        return len(self.scenes)

    def scene_name(self, index: int) -> str:
        return f"world-{index}"

    def __getitem__(self, index: int):
        if index in self.damaged:
            raise ValueError(f"world-{index}: damaged on purpose")
        if index == self.interrupt_at and self.planned:
            raise KeyboardInterrupt
        self.planned |= index == len(self) - 1
        return self.scenes[index]


@pytest.fixture
def task() -> NovelViews:
    torch.manual_seed(0)
    return NovelViews(Inference(NAS3R(presets.get("tiny")).eval()), 32)


def test_an_interrupted_run_resumes_to_the_identical_table(task, worlds, tmp_path):
    whole = evaluate(task, Source(worlds), FEW, PROVENANCE, tmp_path / "whole", pictures=1)
    with pytest.raises(KeyboardInterrupt):
        evaluate(task, Source(worlds, interrupt_at=1), FEW, PROVENANCE, tmp_path / "cut", pictures=1)
    finished = sorted((tmp_path / "cut" / "parts").glob("0*.json"))
    assert 0 < len(finished) < whole["view_sets"]
    before = [f.stat().st_mtime_ns for f in finished]
    resumed = evaluate(task, Source(worlds), FEW, PROVENANCE, tmp_path / "cut", pictures=1)
    assert resumed == whole
    assert [f.stat().st_mtime_ns for f in finished] == before
    assert (tmp_path / "cut" / "results.md").read_text() == (tmp_path / "whole" / "results.md").read_text()
    assert (tmp_path / "cut" / "report.html").read_text() == (tmp_path / "whole" / "report.html").read_text()


def test_a_damaged_scene_is_counted_and_named(task, worlds, tmp_path):
    results = evaluate(task, Source(worlds, damaged=(1,)), FEW, PROVENANCE, tmp_path)
    assert results["scenes"] == 2
    assert [s["scene"] for s in results["skipped"]] == ["world-1"]
    assert "damaged on purpose" in (tmp_path / "results.md").read_text()
    assert "Left out: 1" in (tmp_path / "report.html").read_text()
    stored = json.loads((tmp_path / "results.json").read_text())
    for key in ("command", "weights", "version", "hardware", "settings", "tables", "records"):
        assert key in stored
    assert all({"scene", "context", "targets", "overlap"} <= r.keys() for r in stored["records"])


def test_nothing_but_damage_is_an_error(task, worlds, tmp_path):
    with pytest.raises(ValueError, match="damaged on purpose"):
        evaluate(task, Source(worlds, damaged=(0, 1, 2)), FEW, PROVENANCE, tmp_path)


def test_damage_met_while_running_leaves_the_rest(task, worlds, tmp_path):
    class Fragile(NovelViews):
        def run(self, scene, view_set, album):
            if scene.name == worlds[2].name:
                raise ValueError("this image is truncated")
            return super().run(scene, view_set, album)

    results = evaluate(Fragile(None, 32), Source(worlds), FEW, PROVENANCE, tmp_path)
    assert results["scenes"] == 2
    assert {s["scene"] for s in results["skipped"]} == {"world-2"}


def test_other_settings_need_another_folder(task, worlds, tmp_path):
    evaluate(NovelViews(None, 32), worlds, FEW, PROVENANCE, tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        evaluate(NovelViews(None, 48), worlds, FEW, PROVENANCE, tmp_path)
    evaluate(NovelViews(None, 48), worlds, FEW, PROVENANCE, tmp_path, overwrite=True)


def write_index(path, entries):
    path.write_text(json.dumps(entries))
    return path


def test_index_and_published_protocol(worlds, tmp_path):
    entries = {
        "world-0": {"context": [0, 8], "target": [0, 4], "overlap": 0.04},
        "world-1": None,
        "world-2": {"context": [0, 8], "target": [99], "overlap": 0.4},
    }
    index = write_index(tmp_path / "index.json", entries)
    results = {}
    for protocol in ("default", "published"):
        selection = Selection(index=index, protocol=protocol)
        task = NovelViews(None, 32)
        results[protocol] = evaluate(task, Source(worlds), selection, PROVENANCE, tmp_path / protocol)
    corrected, published = results["default"]["records"][0], results["published"]["records"][0]
    assert (corrected["targets"], corrected["tag"]) == ([4], "tiny")
    assert (published["targets"], published["tag"]) == ([0, 4], "medium")
    assert results["default"]["not_in_index"] == 1
    assert "view 99" in results["default"]["skipped"][0]["reason"]
    with pytest.raises(ValueError, match="--index"):
        evaluate(task, worlds, Selection(protocol="published"), PROVENANCE, tmp_path / "none")


def test_more_views(worlds, tmp_path):
    selection = Selection(views=4, sets_per_class=1)
    task = Poses(None, 32, baselines=("identity",))
    results = evaluate(task, worlds, selection, PROVENANCE, tmp_path)
    scenes = {worlds[i].name: worlds[i] for i in range(len(worlds))}
    assert {record["scene"] for record in results["records"]} == scenes.keys()
    for record in results["records"]:
        assert len(record["context"]) == 4
        scene = scenes[record["scene"]]
        rotations = scene.read(record["context"], 32, 32).cameras.world_from_camera[0, :, :3, :3]
        expected = [rotation_angle(rotations[i], rotations[j]).item() for i, j in combinations(range(4), 2)]
        # The identity is wrong by as much as the camera turned; degrees, float32.
        assert sorted(record["result"]["identity"]["rotation"]) == pytest.approx(sorted(expected), abs=1e-2)


def test_weights_are_described_by_their_content(tmp_path):
    torch.manual_seed(0)
    model = NAS3R(presets.get("tiny"))
    save(model, tmp_path / "a.safetensors")
    save(model, tmp_path / "b.safetensors")
    names = [str(tmp_path / f"{n}.safetensors") for n in "ab"]
    first, second = (describe_weights(name, load(name, "cpu")) for name in names)
    assert first["name"] != second["name"]
    assert first["sha256"] == second["sha256"] == describe_weights(None, model)["sha256"]
    with torch.no_grad():
        model.camera_head.out.bias += 1
    assert describe_weights(None, model)["sha256"] != first["sha256"]
