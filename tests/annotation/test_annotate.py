"""Labels for a corpus: what the model says, beside the frames, once for every clip."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from nas3r.annotation import LabelOptions, annotate_shards, label_clip
from nas3r.cli.main import main
from nas3r.data.parts import Part, parse_part
from nas3r.data.shards.writer import ShardWriter
from nas3r.data.sources import open_source
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.geometry import Cameras, project, unproject_depth
from nas3r.io.images import encode_jpeg
from nas3r.models import NAS3R, infer, load, presets

WORLDS = SyntheticConfig(families={"room": 1.0}, paths={"orbit": 1.0}, shake=0, frames=8)
OPTIONS = LabelOptions(views=3, size=32)
WEIGHTS = {"name": "tiny", "sha256": "0"}


@pytest.fixture(scope="module")
def model() -> NAS3R:
    return load(None, device="cpu")


@pytest.fixture
def shards(tmp_path):
    """Three shards of two clips of eight frames, 48 x 36; one frame of one clip is damaged."""
    folder = tmp_path / "shards"
    index = []
    for shard in range(3):
        with ShardWriter(folder, f"s{shard}", 100) as writer:
            for clip in range(2):
                number = 2 * shard + clip
                views = SyntheticScenes(seed=number, config=WORLDS, length=1)[0].read(range(8), 36, 48)
                frames = [encode_jpeg((i * 255).byte().permute(1, 2, 0).numpy(), 95) for i in views.images]
                if number == 3:
                    frames[4] = frames[4][:200]
                writer.add(f"clip{number}", frames, {"travel": [0.1 * k for k in range(8)]})
        index += writer.shards
    (folder / "index.json").write_text(json.dumps({"shards": index}))
    return folder


def members(path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}


def test_labels_are_what_the_model_says(model, shards):
    clip = open_source(shards)[0]
    labels = label_clip(model, clip, OPTIONS)
    assert labels.views == (0, 4, 7)  # evenly, by rounding
    resize = labels.resize
    assert (resize.width, resize.height) == (40, 32)  # 4:3, in whole patches of 8
    images = np.stack([resize.apply(f.permute(1, 2, 0).numpy()) for f in clip.read(range(8))])
    images = torch.from_numpy(images).permute(0, 3, 1, 2)[None].float() / 255
    with torch.no_grad():
        scene = infer(model, images[:, [0, 4, 7]])
        others = [1, 2, 3, 5, 6]
        located = scene.locate(images[:, others])
    np.testing.assert_allclose(labels.depth, scene.prediction.depth[0].numpy(), rtol=1e-5)
    poses = torch.tensor(labels.world_from_camera).float()
    torch.testing.assert_close(poses[[0, 4, 7]], scene.prediction.cameras.world_from_camera[0])
    torch.testing.assert_close(poses[others], located.world_from_camera[0])
    # Intrinsics are those of the stored frames: what was kept of them is `box`.
    left, top, right, bottom = resize.box
    k = scene.prediction.cameras.intrinsics[0, 1].double().numpy()
    expected = [k[0, 0] * (right - left), k[1, 1] * (bottom - top)]
    np.testing.assert_allclose([labels.intrinsics[4, 0, 0], labels.intrinsics[4, 1, 1]], expected, rtol=1e-6)
    np.testing.assert_allclose(labels.intrinsics[4, 0, 2], left + k[0, 2] * (right - left), rtol=1e-6)
    assert labels.confidence.min() > 0
    assert labels.confidence.max() <= 1


def test_confidence_is_high_where_views_agree(model, shards):
    """By a second computation: colours of the points where the other views have them."""
    clip = open_source(shards)[0]
    labels = label_clip(model, clip, LabelOptions(views=2, size=32))
    resize = labels.resize
    frames = torch.stack(
        [torch.tensor(resize.apply(f.permute(1, 2, 0).numpy())) for f in clip.read(labels.views)]
    )
    k = torch.tensor(labels.intrinsics[list(labels.views)])
    k = torch.tensor(resize.matrix) @ k
    pose = torch.tensor(labels.world_from_camera[list(labels.views)])
    cameras = Cameras(pose[None].float(), k[None].float())
    points = unproject_depth(cameras, torch.tensor(labels.depth)[None])[0, 0].reshape(1, -1, 3)
    xy, z = project(cameras.views([1]), points)
    seen = (z[0, 0] > 0) & ((xy[0, 0] > 0.02) & (xy[0, 0] < 0.98)).all(-1)
    column, row = (xy[0, 0] * torch.tensor([resize.width, resize.height])).long().unbind(-1)
    there = frames[1][row.clamp(0, 31), column.clamp(0, 39)].float()
    off = (there - frames[0].reshape(-1, 3)).square().mean(-1).sqrt() / 255
    confidence = torch.tensor(labels.confidence[0]).flatten()
    assert confidence[seen & (off < 0.03)].mean() > confidence[seen & (off > 0.2)].mean() + 0.2
    assert torch.equal(confidence[(z[0, 0] <= 0)], torch.ones_like(confidence[(z[0, 0] <= 0)]))


def test_a_corpus_is_labelled_beside_its_frames(model, shards, tmp_path):
    out = tmp_path / "labelled"
    report = annotate_shards(model, WEIGHTS, shards, out, OPTIONS)
    summary = report.summary()
    assert summary["clips_labelled"] == 5
    assert list(summary["clips_left_out"]) == ["clip3"]
    before, after = members(shards / "s0-000.tar"), members(out / "s0-000-000.tar")
    assert before.items() <= after.items()  # every frame and description, byte for byte
    cameras = json.loads(after["clip0.cameras.json"])
    labels = label_clip(model, open_source(shards)[0], OPTIONS)
    np.testing.assert_allclose(cameras["world_from_camera"], labels.world_from_camera, atol=1e-6)
    assert cameras["depth_frames"] == [0, 4, 7]
    with Image.open(io.BytesIO(after["clip0.000004.depth.png"])) as image:
        depth = np.asarray(image) * cameras["depth_unit_per_count"]
    np.testing.assert_allclose(depth, labels.depth[1], atol=cameras["depth_unit_per_count"])
    with Image.open(io.BytesIO(after["clip0.000004.confidence.png"])) as image:
        np.testing.assert_allclose(np.asarray(image) / 255, labels.confidence[1], atol=0.5 / 255 + 1e-6)
    # Still a corpus to train on: labels are no frames.
    old, new = open_source(shards), open_source(out)
    assert [new[i].name for i in range(6)] == [old[i].name for i in range(6)]
    assert torch.equal(new[2].read([0, 7]), old[2].read([0, 7]))
    assert len(new[3]) == 8


def test_parts_do_everything_once_and_work_goes_on(model, shards, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    annotate_shards(model, WEIGHTS, shards, whole, OPTIONS)
    first = annotate_shards(model, WEIGHTS, shards, parts, OPTIONS, part=Part(1, 2))
    assert {r.shard for r in first.records} == {"s0-000.tar", "s2-000.tar"}
    second = annotate_shards(model, WEIGHTS, shards, parts, OPTIONS, part=Part(2, 2))
    assert len(second.records) == 3
    for path in whole.glob("*.tar"):
        assert members(parts / path.name) == members(path)
    assert json.loads((parts / "index.json").read_text()) == json.loads((whole / "index.json").read_text())

    def never(*unused):
        raise AssertionError("this shard was done")

    monkeypatch.setattr("nas3r.annotation.corpus.label_clip", never)
    assert annotate_shards(model, WEIGHTS, shards, parts, OPTIONS).skipped == 3
    with pytest.raises(AssertionError, match="was done"):
        annotate_shards(model, {**WEIGHTS, "sha256": "1"}, shards, parts, OPTIONS)  # by other weights


def test_a_broken_shard_costs_itself(model, shards, tmp_path):
    (shards / "a.tar").write_bytes(b"no tar" * 300)
    summary = annotate_shards(model, WEIGHTS, shards, tmp_path / "out", OPTIONS).summary()
    assert list(summary["shards_unreadable"]) == ["a.tar"]
    assert summary["clips_labelled"] == 5


def test_the_command(shards, tmp_path, capsys):
    words = ["annotate", str(shards), "-o", str(tmp_path / "out"), "--views", "2", "--size", "32"]
    assert main([*words, "--part", "3/3"]) == 0
    assert "2 clips labelled in 1 shards" in capsys.readouterr().out
    assert main([*words, "--part", "4/3"]) == 2
    assert main([*words, "--part", "two"]) == 2
    assert main(["annotate", str(shards), "-o", str(shards)]) == 2
    assert capsys.readouterr().err.count("nas3r:") == 3


def test_networks_that_need_intrinsics_cannot_label(shards):
    model = NAS3R(presets.get("tiny-I")).eval()
    with pytest.raises(ValueError, match="must be told intrinsics"):
        label_clip(model, open_source(shards)[0], OPTIONS)


def test_every_number_belongs_to_one_part():
    for count in (1, 2, 5):
        held = [sum(Part(i, count).holds(key) for i in range(1, count + 1)) for key in range(40)]
        assert held == [1] * 40
    assert parse_part(None) == Part()
    assert str(parse_part("2/8")) == "2/8"
