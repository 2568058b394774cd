import json
import logging
import os
from dataclasses import replace

import pytest
import torch

from nas3r.losses import PhotometricConfig
from nas3r.models import NAS3R
from nas3r.training.config import GroupRule, located, of_length
from nas3r.training.objectives import Photometric
from nas3r.training.state import CheckpointFolder, config_differences, prepare_run, stored_config


@pytest.fixture
def model(smallest) -> NAS3R:
    return NAS3R(smallest)


def test_round_trip(model, run):
    folder = CheckpointFolder(run, keep=2)
    saved = folder.save(7, model, {"step": 7, "optimizer": {"moment": torch.arange(3)}})
    found = folder.newest_valid()
    assert found == saved
    assert found.training_state()["optimizer"]["moment"].tolist() == [0, 1, 2]
    assert found.average is None
    assert not list(folder.root.glob(".*"))


def test_only_the_newest_are_kept_and_leftovers_removed(model, run):
    folder = CheckpointFolder(run, keep=2)
    leftover = folder.root / ".step_000000001.tmp"
    leftover.mkdir(parents=True)
    for step in (1, 2, 30, 4):
        folder.save(step, model, {})
    assert [c.step for c in folder.all()] == [30, 4]
    assert not leftover.exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "no manifest", "bad manifest"])
def test_damaged_checkpoints_are_skipped_with_a_warning(model, run, damage, caplog):
    folder = CheckpointFolder(run, keep=3)
    good = folder.save(1, model, {"step": 1})
    bad = folder.save(2, model, {"step": 2})
    state = bad.folder / "training.pt"
    if damage == "truncated":
        os.truncate(state, 10)
    elif damage == "flipped":
        content = bytearray(bad.weights.read_bytes())
        content[-1] ^= 1
        bad.weights.write_bytes(content)
    elif damage == "missing":
        state.unlink()
    elif damage == "no manifest":
        (bad.folder / "manifest.json").unlink()
    else:
        (bad.folder / "manifest.json").write_text(json.dumps([1, 2]))
    with caplog.at_level(logging.WARNING):
        assert folder.newest_valid() == good
    assert "step_000000002" in caplog.text


def test_a_training_state_that_is_none_is_refused_and_runs_nothing(model, run, tmp_path):
    trace = tmp_path / "owned"

    class Malicious:
        def __reduce__(self):
            return (os.system, (f"touch {trace}",))

    saved = CheckpointFolder(run, keep=1).save(1, model, {})
    path = saved.folder / "training.pt"
    torch.save({"x": Malicious()}, path)
    with pytest.raises(ValueError, match="not a readable training state"):
        saved.training_state()
    assert not trace.exists()
    for data in (b"", b"{}", path.read_bytes()[:100]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="not a readable training state"):
            saved.training_state()


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "null", '{"files": 1}', ""])
def test_a_checkpoint_with_a_broken_manifest_is_damaged(model, run, text):
    saved = CheckpointFolder(run, keep=1).save(1, model, {})
    assert saved.damage() is None
    (saved.folder / "manifest.json").write_text(text)
    assert saved.damage() is not None


def test_a_deeply_nested_config_is_no_run(run):
    run.mkdir(exist_ok=True)
    (run / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        stored_config(run)


def test_folder_names_that_are_no_checkpoints_are_ignored(run):
    folder = CheckpointFolder(run, keep=1)
    (folder.root / "step_best").mkdir(parents=True)
    assert folder.newest_valid() is None


def test_configurations_may_differ_in_length_and_reports_only(config, run):
    config = replace(config, optim=replace(config.optim, rules=(GroupRule("camera", 0.5, 10),)))
    prepare_run(run, config, resume=False)
    longer = replace(
        config,
        schedule=replace(config.schedule, steps=999),
        runtime=replace(config.runtime, log_every=1),
    )
    prepare_run(run, longer, resume=True)
    prepare_run(run, of_length(config, 77), resume=True)
    other = replace(config, seed=5, data=replace(config.data, batch_size=2))
    with pytest.raises(ValueError, match=r"data\.batch_size was 4, now 2; seed was 0, now 5"):
        prepare_run(run, other, resume=True)


def test_paths_of_a_run_are_absolute_and_names_stay(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()  # has the name of a preset
    (tmp_path / "start.safetensors").touch()
    worlds = replace(config.data.synthetic, photos="tiny")
    data = replace(config.data, paths=("tiny", "http://host/shards"), synthetic=worlds)
    loss = PhotometricConfig(perceptual="lpips", lpips_weights="start.safetensors")
    given = replace(config, data=data, objective=Photometric(loss), initial="tiny")
    found = located(given)
    assert found.data.paths == (str(tmp_path / "tiny"), "http://host/shards")
    assert found.data.synthetic.photos == str(tmp_path / "tiny")
    assert found.objective.loss.lpips_weights == str(tmp_path / "start.safetensors")
    assert found.initial == "tiny"
    start = located(replace(given, initial="start.safetensors"))
    assert start.initial == str(tmp_path / "start.safetensors")
    assert located(found) == found


def test_the_perceptual_weights_named_by_the_environment_are_stored(config, monkeypatch):
    monkeypatch.setenv("NAS3R_LPIPS_WEIGHTS", "/somewhere/vgg16.pth")
    lpips = replace(config, objective=Photometric(PhotometricConfig(perceptual="lpips")))
    assert located(lpips).objective.loss.lpips_weights == "/somewhere/vgg16.pth"
    assert located(config) == config


def test_runs_of_another_version_are_refused_in_one_sentence(config, run):
    prepare_run(run, config, resume=False)
    path = run / "config.json"
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({**plain, "supervised": None}))  # as version 0.1.0 wrote it
    with pytest.raises(ValueError, match=r"not by this version .* \(run: unknown fields \['supervised'\]"):
        prepare_run(run, config, resume=True)
    path.write_text(json.dumps({**plain, "optim": {"class": "Lion"}}))
    with pytest.raises(ValueError, match=r"got .Lion."):
        stored_config(run)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"expected an object, got \[\]"):
        stored_config(run)
    path.write_text("{")
    with pytest.raises(ValueError, match="not by this version"):
        stored_config(run)


def test_differences_are_named_by_path():
    rules = {"optim": {"rules": [{"lr": 1, "frozen_until": 5}]}}
    slower = {"optim": {"rules": [{"lr": 2, "frozen_until": 9}]}}
    assert config_differences(rules, slower) == ["optim.rules.0.lr was 1, now 2"]
    assert config_differences({"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}) == [
        "a.b was 1, now 2",
        "c was None, now 3",
    ]
