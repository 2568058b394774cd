"""Reading and writing weights; damaged and hostile files."""

import argparse
import json
import logging
import os
import re
import sys
import types
import zipfile

import pytest
import torch
from model_helpers import OFFICIAL, random_model, reduced
from safetensors.torch import save_file

import nas3r
from nas3r.models import NAS3R, ModelConfig, build, checkpoints, hub, presets, save
from nas3r.models.official import tensors as official


@pytest.fixture
def model() -> NAS3R:
    return random_model(reduced("tiny")).eval()


@pytest.mark.parametrize("name", ["tiny", "tiny-m-I", "nas3r", "nas3r-m"])
def test_saved_and_loaded_model_is_the_same(name, tmp_path):
    model = random_model(reduced(name))
    path = tmp_path / "weights.safetensors"
    save(model, path)
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]
    again = nas3r.load(path, device="cpu")
    assert again.config == model.config
    assert not again.training
    assert all(p.requires_grad for p in again.parameters())
    for (key, a), (other, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert key == other
        assert torch.equal(a, b)


def test_loaded_weights_can_be_trained_without_touching_the_file(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    save(model, path)
    before = path.read_bytes()
    again = nas3r.load(path, device="cpu").train()
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.add_(1.0)
    assert path.read_bytes() == before


def test_saving_replaces_and_a_failed_save_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save(model, path)
    before = path.read_bytes()

    def fail(tensors, name, metadata):
        name.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save(model, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


def test_preset_name_gives_random_weights_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        model = nas3r.load("tiny", device="cpu")
    assert model.config == presets.get("tiny")
    assert "random" in caplog.text


def test_packaged_weights(model, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.resources, "files", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match="no default weights"):
        nas3r.load(device="cpu")
    (tmp_path / "weights").mkdir()
    save(model, tmp_path / "weights" / "default.safetensors")
    assert nas3r.load(device="cpu").config == model.config
    assert nas3r.load("default", device="cpu").config == model.config


def test_unknown_name():
    with pytest.raises(FileNotFoundError, match=r"no weights file 'nothing', nor a preset .*tiny"):
        nas3r.load("nothing")


def refused(path, *fragments: str) -> None:
    """Loading ends in one sentence that names the file."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        nas3r.load(path, device="cpu")
    text = str(error.value)
    assert "\n" not in text
    for fragment in fragments:
        assert fragment in text


class Hostile:
    """Unpickling this runs a command."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("where", ["state_dict", "elsewhere", "root"])
def test_hostile_pickle_is_refused_and_not_run(where, tmp_path):
    path, proof = tmp_path / "bad.ckpt", tmp_path / "executed"
    content = {"state_dict": {"a": torch.zeros(1)}, "elsewhere": 1, where: Hostile(proof)}
    torch.save(Hostile(proof) if where == "root" else content, path)
    refused(path, "system", "nothing in it was executed")
    assert not proof.exists()


def test_hostile_state_dict_entry_is_refused_and_not_run(tmp_path):
    path, proof = tmp_path / "bad.ckpt", tmp_path / "executed"
    torch.save({"state_dict": {"encoder.backbone.pose_token": Hostile(proof)}}, path)
    refused(path, "nothing in it was executed")
    assert not proof.exists()


@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.99])
def test_truncated_files_are_refused(kind, part, model, tmp_path):
    path = tmp_path / f"cut.{kind}"
    if kind == "ckpt":
        torch.save({"state_dict": model.state_dict()}, path)
    else:
        save(model, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    refused(path)


def test_zip_with_a_damaged_middle_is_refused(tmp_path):
    path = tmp_path / "damaged.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(4)}}, path)
    data = bytearray(path.read_bytes())
    start = data.find(b"data.pkl") + 20
    data[start : start + 40] = os.urandom(40)
    path.write_bytes(data)
    refused(path)


@pytest.mark.parametrize(
    "content", [{}, {"state_dict": {}}, {"state_dict": {"a": 1}}, [1, 2], {"state_dict": {3: torch.zeros(1)}}]
)
def test_checkpoint_without_a_state_dict_is_refused(content, tmp_path):
    path = tmp_path / "empty.ckpt"
    torch.save(content, path)
    refused(path, "not a readable checkpoint")


def test_checkpoint_of_another_network_is_refused(tmp_path):
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"conv.weight": torch.zeros(1)}}, path)
    refused(path, "not those of an official NAS3R checkpoint")


def test_safetensors_of_another_project_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    refused(path, "holds no nas3r model")


@pytest.mark.parametrize(
    ("config", "fragment"),
    [
        ("not json", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ('{"colour": 1}', "unknown fields ['colour']"),
        ('{"family": "unknown"}', "family: expected one of"),
        ('{"encoder_width": "wide"}', "width: expected an integer"),
        ('{"decoder_heads": 0}', "heads: expected an integer"),
        ('{"encoder_depth": 1000000000}', "depth: expected an integer from 0 to 256"),
        ('{"encoder_depth": 5000}', "depth: expected an integer from 0 to 256"),
        ('{"hooks": 3}', "hooks: expected a list"),
        ('{"camera_hidden": [1.5]}', "hidden: expected an integer"),
        ('{"camera_hidden": [-1]}', "hidden: expected an integer"),
        ('{"head": "dpt", "dpt_channels": [8, 8]}', "channels: expected a list of 4 numbers"),
        ('{"focal": "fov", "fov_range": [0.1, "wide"]}', "bounds: expected a number"),
        ('{"camera_iterations": 4}', "camera_iterations: expected one of [1]"),
        ('{"depth_range": [1]}', "depth_range: expected two numbers"),
        ('{"encoder": {"width": 1e9}}', "width: expected an integer"),
        ('{"encoder": [1]}', "encoder"),
        ('{"encoder": {"colour": 1}}', "unknown fields ['colour']"),
        ('{"encoder": {}, "decoder": {"class": "Other"}}', "expected one of AlternatingConfig, CrossConfig"),
        ('{"encoder": {}, "poses": 3}', "expected one of Regressed, Solved"),
        ('{"masked": "yes"}', "masked: expected true or false"),
        ('{"mlp_ratio": "4"}', "mlp_ratio: expected a number"),
        ('{"mlp_ratio": NaN}', "mlp_ratio: expected a number"),
        ('{"mlp_ratio": 1e300}', "mlp_ratio: expected more than 0 and at most"),
    ],
)
def test_config_that_makes_no_sense_is_refused(config, fragment, model, tmp_path):
    path = tmp_path / "odd.safetensors"
    save_file(dict(model.state_dict()), path, metadata={"format": "nas3r", "config": config})
    refused(path, fragment)


def test_wrong_shapes_and_names_are_refused(model, tmp_path):
    path = tmp_path / "wrong.safetensors"
    metadata = {"format": "nas3r", "config": json.dumps(model.config.to_dict())}
    state = dict(model.state_dict())
    save_file(state | {"encoder.norm.weight": torch.zeros(7)}, path, metadata=metadata)
    refused(path, "encoder.norm.weight has shape [7] instead of [24]")
    save_file(state | {"surplus": torch.zeros(7)}, path, metadata=metadata)
    refused(path, "surplus is unexpected")
    del state["encoder.norm.weight"]
    save_file(state, path, metadata=metadata)
    refused(path, "encoder.norm.weight is missing")


def test_integers_for_weights_are_refused(model, tmp_path):
    path = tmp_path / "integers.safetensors"
    metadata = {"format": "nas3r", "config": json.dumps(model.config.to_dict())}
    save_file({k: v.to(torch.int32) for k, v in model.state_dict().items()}, path, metadata=metadata)
    refused(path, "holds no plain numbers")


def test_compressed_records_are_refused_unread(tmp_path):
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1_000_000))
    refused(path, "compressed records")


def test_files_can_be_read_by_whom_the_umask_lets(model, tmp_path):
    (tmp_path / "plain").touch()
    save(model, tmp_path / "weights.safetensors")
    modes = [(tmp_path / name).stat().st_mode for name in ("plain", "weights.safetensors")]
    assert modes[0] == modes[1]


def test_config_round_trip():
    for name in presets.names():
        config = presets.get(name)
        assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_names_are_all_used_or_accounted_for(name, reference_folder, recipe):
    state = {
        key: torch.zeros(1).expand(shape)
        for key, shape, _ in recipe.read_keys(reference_folder / f"keys_{name}.txt")
    }
    translated = official.translate(state)
    assert translated.preset == name
    with torch.device("meta"):
        model = build(translated.config)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in translated.tensors.items()
    }
    dead = set((reference_folder / f"unused_{name}.txt").read_text().split())
    aliases = {
        key for key, _, alias in recipe.read_keys(reference_folder / f"keys_{name}.txt") if alias is not None
    }
    assert set(translated.unused) == dead | aliases


def official_file(path, name: str, recipe, folder, **changes) -> None:
    """A Lightning file with the right names and one number per tensor."""
    state = {
        key: torch.zeros(1).expand(shape) for key, shape, _ in recipe.read_keys(folder / f"keys_{name}.txt")
    }
    torch.save({"state_dict": {k: v for k, v in (state | changes).items() if v is not None}}, path)


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"encoder.backbone.dec_norm.weight": None}, "decoder.norm.weight is missing"),
        ({"encoder.backbone.dec_norm.surplus": torch.zeros(1)}, "surplus is unexpected"),
        ({"encoder.backbone.dec_norm.weight": torch.zeros(3)}, "has shape [3] instead of [768]"),
        ({"encoder.backbone.dec_norm.weight": torch.zeros(768).to_sparse()}, "holds no plain numbers"),
        ({"encoder.backbone.dec_norm.weight": torch.zeros(768, device="meta")}, "holds no plain numbers"),
        ({"encoder.pose_head.fc_t.weight": torch.zeros(3, 5)}, "output layers of a pose head"),
    ],
)
def test_official_checkpoints_load_strictly(changes, fragment, tmp_path, reference_folder, recipe):
    path = tmp_path / "official.ckpt"
    official_file(path, "nas3r-m", recipe, reference_folder, **changes)
    refused(path, fragment)


def test_checkpoint_with_training_options_of_plain_values_is_read(tmp_path):
    path = tmp_path / "options.pth"
    torch.save({"args": argparse.Namespace(lr=1.0), "model": {"a": torch.ones(1)}}, path)
    assert checkpoints.read_state_dict(path)["a"] == 1


def fake_hub(monkeypatch, files: list[str], path=None, error: Exception | None = None) -> None:
    module = types.ModuleType("huggingface_hub")

    def download(repo_id, file):
        if error:
            raise error
        assert repo_id == "owner/name"
        return str(path)

    module.list_repo_files = lambda repo_id: files
    module.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


def test_hub_repository(model, tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save(model, path)
    fake_hub(monkeypatch, ["README.md", "weights.safetensors"], path)
    assert nas3r.load("owner/name", device="cpu").config == model.config
    assert nas3r.load("owner/name/folder/weights.safetensors", device="cpu").config == model.config


def test_hub_problems_are_one_sentence(monkeypatch):
    fake_hub(monkeypatch, ["a.ckpt", "b.ckpt"])
    with pytest.raises(ValueError, match=r"name one: a\.ckpt, b\.ckpt"):
        hub.download("owner/name")
    fake_hub(monkeypatch, ["README.md"])
    with pytest.raises(ValueError, match=r"no .safetensors or .ckpt file"):
        hub.download("owner/name")
    fake_hub(monkeypatch, ["a.ckpt"], error=TimeoutError("no network\nat all"))
    with pytest.raises(ConnectionError, match=r"cannot be fetched from the hub \(TimeoutError\)$"):
        hub.download("owner/name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'nas3r\[hub\]'"):
        nas3r.load("owner/name")
