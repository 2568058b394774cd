"""The command line."""

import json
import sys

import pytest
import torch

from nas3r.cli.main import EXIT_BAD_INPUT, main
from nas3r.data.synthetic import SyntheticScenes
from nas3r.geometry import rotation_angle
from nas3r.io.images import encode_jpeg
from nas3r.models import NAS3R, presets, save


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(NAS3R(presets.get("tiny")), path)
    return path


def run(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


def test_novel_views(weights, tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--weights", weights, "--size", 32, "--sets-per-class", 1, "--targets", 1, "-o", out)
    assert run("nvs", "synthetic:0:1", *options) == 0
    assert "| nas3r |" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert results["command"].startswith("nas3r evaluate nvs synthetic:0:1 -o ")
    assert "--size 32" in results["command"]
    assert results["weights"]["name"] == "tiny.safetensors"
    assert run("nvs", "synthetic:0:1", *options) == 0  # nothing left to do


SPLATTING = ("--weights", "none", "--size", 32, "--sets-per-class", 1, "--targets", 1, "--baselines")


def test_splatting_where_colmap_finds_nothing(tmp_path):
    """Two views of 32 pixels: there is no figure, and the table says of how many view sets there is one."""
    pytest.importorskip("pycolmap")
    options = (*SPLATTING, "nearest", "colmap-3dgs", "--splat-seconds", 1, "-o", tmp_path)
    assert run("nvs", "synthetic:0:1", *options) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["tables"][0]["rows"]
    assert [row[:4] for row in rows if row[0] == "all"] == [
        ["all", "nearest context", 1, len(rows) // 2 - 1],
        ["all", "COLMAP + 3DGS", 0, 0],
    ]


def test_splatting_without_pycolmap_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    assert run("nvs", "synthetic:0:1", *SPLATTING, "colmap-3dgs", "-o", tmp_path / "out") == EXIT_BAD_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert 'pip install "nas3r[baselines]"' in line


def test_depth_without_a_model(tmp_path):
    options = ("--weights", "none", "--size", 32, "--sets-per-class", 1, "-o", tmp_path)
    assert run("depth", "synthetic:0:2", *options) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["weights"] == {}
    assert {row[1] for row in results["tables"][0]["rows"]} == {"constant", "data set's mean depth map"}


def test_pose_of_three_views(weights, tmp_path):
    options = ("--weights", weights, "--size", 32, "--views", 3, "--sets-per-class", 1, "-o", tmp_path)
    assert run("pose", "synthetic:0:1", *options, "--baselines", "identity") == 0
    scene = SyntheticScenes(seed=0, length=1)[0]
    for record in json.loads((tmp_path / "results.json").read_text())["records"]:
        rotations = scene.read(record["context"], 32, 32).cameras.world_from_camera[0, :, :3, :3]
        expected = [rotation_angle(rotations[i], rotations[j]).item() for i, j in ((0, 1), (0, 2), (1, 2))]
        # The identity is wrong by as much as the camera turned; degrees, float32.
        assert sorted(record["result"]["identity"]["rotation"]) == pytest.approx(sorted(expected), abs=1e-2)


def test_stress(tmp_path):
    options = ("--weights", "none", "--size", 32, "--scenes", 1, "--no-sift", "-o", tmp_path)
    assert run("stress", "--factors", "exposure", *options) == 0
    assert (tmp_path / "report.html").is_file()
    command = json.loads((tmp_path / "results.json").read_text())["command"]
    assert "--scenes 1 --no-sift" in command  # can be run again as it stands there


@pytest.mark.parametrize(
    "arguments",
    [
        ("pose", "nowhere", "--weights", "none"),
        ("pose", "synthetic:0:1", "--weights", "no-such-weights"),
        ("nvs", "synthetic:0:1", "--weights", "none", "--protocol", "published"),
        ("nvs", "synthetic:0:1", "--weights", "tiny", "--size", "30"),
    ],
)
def test_mistakes_are_one_sentence(arguments, tmp_path, capsys):
    assert run(*arguments, "-o", tmp_path / "out") == EXIT_BAD_INPUT
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nas3r:")]
    assert len(lines) == 1


def write_chunks(folder, worlds):
    """Two scenes in the published format, the second with a truncated image."""
    folder.mkdir()
    entries = []
    for number in range(2):
        views = worlds[number].read(range(6), 36, 64)
        k = views.cameras.intrinsics[0, 0]
        head = torch.tensor([k[0, 0], k[1, 1], k[0, 2], k[1, 2], 0, 0])
        poses = views.cameras.camera_from_world[0, :, :3].reshape(6, 12)
        images = []
        for image in views.images:
            pixels = (image * 255).byte().permute(1, 2, 0).numpy()
            images.append(torch.tensor(list(encode_jpeg(pixels)), dtype=torch.uint8))
        if number == 1:
            images[3] = images[3][: len(images[3]) // 2]
        entries.append(
            {"key": f"scene{number}", "cameras": torch.cat([head.expand(6, 6), poses], 1), "images": images}
        )
    torch.save(entries, folder / "000000.torch")
    index = {
        "scene0": {"context": [0, 5], "target": [0, 2, 3], "overlap": 0.4},
        "scene1": {"context": [0, 5], "target": [3], "overlap": 0.4},
        "elsewhere": None,
    }
    (folder / "evaluation_index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(("protocol", "targets"), [("published", [0, 2, 3]), ("default", [2, 3])])
@pytest.mark.parametrize("task", ["nvs", "pose"])
def test_chunks_with_an_index(weights, worlds, tmp_path, protocol, targets, task):
    write_chunks(tmp_path / "re10k", worlds)
    out = tmp_path / "out"
    options = ["--weights", weights, "--size", 32, "--index", tmp_path / "re10k" / "evaluation_index.json"]
    assert run(task, tmp_path / "re10k", *options, "--protocol", protocol, "-o", out) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["records"][0]["targets"] == targets
    reads_the_damaged_image = task == "nvs" or protocol == "published"
    assert [s["scene"] for s in results["skipped"]] == (["scene1"] if reads_the_damaged_image else [])
