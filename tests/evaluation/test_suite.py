"""The published evaluations on miniatures of every data set they need."""

import json
import shutil

import pytest
import torch

from miniatures import world_views, write_blended, write_chunks, write_dtu
from nas3r.cli.main import main
from nas3r.evaluation.suite.data_sets import DATA_SETS
from nas3r.evaluation.suite.evaluations import evaluations
from nas3r.evaluation.suite.published import look_up, published_figures, row_of
from nas3r.models import NAS3R, presets, save
from nas3r.models.official.catalog import CARDS

NUMBERS = (23, 24, 31, 32, 33, 44)  # DTU's index names these views
ALL = [e.name for e in evaluations((2, 3))]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All five data sets, with indices."""
    root = tmp_path_factory.mktemp("data")
    views = [world_views(seed, range(8), 36, 64) for seed in (11, 12)]
    entry = {"context": [0, 7], "target": [2, 5], "overlap": 0.4}
    indices = {"dtu": {"scan8_train": {"context": [33, 31], "target": [32, 24, 44]}, "scan9_train": None}}
    for name in ("re10k", "acid", "dl3dv"):
        folder = root / name.upper() / "test" if name == "acid" else root / name
        write_chunks(folder, {f"{name}-a": views[0], f"{name}-b": views[1]})
        indices[name] = {f"{name}-a": entry, f"{name}-b": entry | {"overlap": 0.2}, "elsewhere": None}
    write_dtu(root / "dtu", ("scan8_train",), world_views(13, (0, 2, 5, 6, 8, 10), 64, 80), NUMBERS)
    for seed in (14, 15):
        write_blended(root / "BlendedMVS" / f"pid{seed}", world_views(seed, range(0, 12, 3), 48, 64))
    for name, index in indices.items():
        (root / f"evaluation_index_{name}.json").write_text(json.dumps(index))
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(NAS3R(presets.get("tiny")), path)
    return path


def run(data, out, weights, *options) -> int:
    words = ["evaluate", "suite", data, "-o", out, "--weights", weights, "--size", 32, "--pictures", 0]
    return main([str(word) for word in (*words, *options)])


def test_every_evaluation_runs_on_miniatures_and_resumes(data, weights, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(data, out, weights, "--views", 2, 3) == 0
    printed = capsys.readouterr().out
    suite = json.loads((out / "suite.json").read_text())
    assert suite["not_run"] == {}
    assert list(dict.fromkeys(cell["evaluation"] for cell in suite["cells"])) == ALL
    cells = {(c["evaluation"], c["overlap"], c["figure"]): c for c in suite["cells"]}
    # Ours are those of the evaluation itself, whose tables are computed elsewhere.
    nvs = json.loads((out / "nvs-re10k-2" / "results.json").read_text())
    assert nvs["settings"]["selection"]["protocol"] == "published"
    (table,) = nvs["tables"]
    psnr = table["columns"].index("PSNR")
    rows = {row[0]: row[psnr] for row in table["rows"] if row[1] == "nas3r"}
    assert rows.keys() == {"all", "small", "medium"}
    for tag, value in rows.items():
        assert cells["nvs-re10k-2", tag, "PSNR"]["ours"] == value
    pose = json.loads((out / "pose-re10k-3" / "results.json").read_text())
    assert [len(r["context"]) for r in pose["records"]] == [3, 3]
    folded = pose["tables"][1]
    place = folded["columns"].index("pose AUC@20")
    row = next(r for r in folded["rows"] if r[:2] == ["all", "nas3r, last target's pass"])
    assert cells["pose-re10k-3", "all", "AUC@20"]["ours"] == row[place]
    dtu = json.loads((out / "nvs-dtu-2" / "results.json").read_text())
    assert dtu["records"][0]["context"] == [33, 31]
    depth = json.loads((out / "depth-blendedmvs-2" / "results.json").read_text())
    assert depth["scenes"] == 2
    assert all(r["context"][1] in (r["context"][0] - 1, r["context"][0] + 1) for r in depth["records"])
    # Published figures stand beside them, empty where they are not known.
    assert cells["nvs-re10k-2", "all", "PSNR"]["paper"] == 23.130
    assert cells["nvs-re10k-2", "small", "PSNR"]["third_party"] == 20.112
    assert cells["nvs-acid-2", "all", "SSIM"]["paper"] is None
    assert "| nvs-re10k-2 | all | PSNR |" in printed
    assert "23.130" in printed
    # Given again, nothing is computed anew, and the comparison is the same.
    parts = {path: path.stat().st_mtime_ns for path in out.glob("*/parts/0*.json")}
    assert run(data, out, weights, "--views", 2, 3) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/parts/0*.json")} == parts
    assert json.loads((out / "suite.json").read_text())["cells"] == suite["cells"]


def test_without_data_it_says_what_is_missing_and_where_it_comes_from(tmp_path, weights, capsys):
    (tmp_path / "data").mkdir()
    assert run(tmp_path / "data", tmp_path / "out", weights) == 2
    printed = capsys.readouterr().out
    for data_set in DATA_SETS.values():
        assert f"no folder {data_set.name}" in printed
        assert data_set.origin in printed
        assert data_set.terms in printed


def test_a_missing_index_and_a_broken_data_set_cost_themselves_alone(data, weights, tmp_path, capsys):
    some = tmp_path / "data"
    some.mkdir()
    for name in ("re10k", "dl3dv"):
        shutil.copytree(data / name, some / name)
    shutil.copy(data / "evaluation_index_re10k.json", some / "re10k")  # beside the data is fine too
    (some / "acid").mkdir()
    (some / "acid" / "000000.torch").write_bytes(b"no chunk")
    shutil.copy(data / "evaluation_index_acid.json", some)
    assert run(some, tmp_path / "out", weights, "--views", 2) == 0
    suite = json.loads((tmp_path / "out" / "suite.json").read_text())
    assert {c["evaluation"] for c in suite["cells"]} == {"nvs-re10k-2", "pose-re10k-2"}
    assert "evaluation_index_dl3dv.json" in suite["not_run"]["pose-dl3dv-2"]
    assert "no scene of the data is in the index" in suite["not_run"]["nvs-acid-2"]
    assert run(some, tmp_path / "out", weights, "--only", "nvs-nowhere-2") == 2
    assert "expected one of nvs-re10k-2" in capsys.readouterr().err


def test_published_figures_are_cells_of_evaluations_that_exist():
    names = {e.name for e in evaluations(range(2, 11))}
    figures = published_figures()
    assert {f.evaluation for f in figures} <= names
    assert {f.weights for f in figures} <= {*CARDS, "nas3r-re10k-dl3dv"}  # whose weights are not published
    keys = [(f.source, f.weights, f.evaluation, f.overlap, f.figure) for f in figures]
    assert len(set(keys)) == len(keys)
    two, ten = evaluations((2, 10))[:2]
    assert row_of("/home/me/re10k_nas3r_pretrained-I.ckpt", two) == "nas3r-re10k-pretrained-I"
    assert (row_of(None, two), row_of("own", ten)) == ("nas3r-re10k", "nas3r-re10k-multiview")
    assert look_up("nas3r-re10k-multiview", "pose-re10k-10", "all", "AUC@20", "paper") == 0.755


def test_figures_quoted_in_the_reference_notes(shared_reference):
    """Section 7.3 of the notes quotes the same report; both must say the same."""
    facts = (shared_reference / "FACTS.md").read_text()
    for weights, views in (("nas3r-re10k", 2), ("nas3r-re10k-multiview", 10), ("nas3r-re10k-pretrained", 2)):
        nvs = [
            look_up(weights, f"nvs-re10k-{views}", "all", f, "third_party") for f in ("PSNR", "SSIM", "LPIPS")
        ]
        pose = [
            look_up(weights, f"pose-re10k-{views}", "all", f"AUC@{t}", "third_party") for t in (5, 10, 20)
        ]
        assert "/".join(f"{v:.3f}" for v in nvs) + "; " + "/".join(f"{v:.3f}" for v in pose) in facts


@pytest.mark.parametrize("given", [[], ["--weights", "default"]])
def test_the_shipped_weights_by_their_name(given, tmp_path, capsys):
    """`nas3r weights` lists "default"; whatever it lists can be named."""
    (tmp_path / "data").mkdir()
    words = ["evaluate", "suite", str(tmp_path / "data"), "-o", str(tmp_path / "out"), *given]
    assert main(words) == 2  # nothing to evaluate on, which is said
    assert "no folder re10k" in capsys.readouterr().out
    assert main(["weights", "default", "--json"]) == 0
    assert [card["name"] for card in json.loads(capsys.readouterr().out)] == ["default"]
