"""Stress tests: levels, views and curves."""

import pytest
import torch

from nas3r.data.synthetic import SyntheticScenes
from nas3r.evaluation.inference import Inference
from nas3r.evaluation.overlap import pairwise_overlap
from nas3r.evaluation.provenance import Provenance
from nas3r.evaluation.tasks.stress import StressSettings, run_stress
from nas3r.evaluation.tasks.stress_factors import FACTORS, spread_views
from nas3r.models import NAS3R, presets

PROVENANCE = Provenance("nas3r evaluate stress", "synthetic", {}, hardware="a machine")


@pytest.mark.parametrize("views", [2, 3, 10])
def test_spread_views(views):
    chosen = spread_views(32, views)
    assert (chosen.context[0], chosen.context[-1]) == (0, 31)
    assert len(set(chosen.context) | set(chosen.targets)) == views + 2


def test_every_level_is_a_world():
    for factor in FACTORS.values():
        for level in factor.levels:
            factor.config(level)
            assert factor.views(level) >= 2


def test_overlap_is_what_was_asked_for():
    factor = FACTORS["overlap"]
    scene = SyntheticScenes(seed=0, config=factor.config(0.5))[0]
    chosen = factor.view_set(scene, 0.5)
    assert chosen is not None
    overlap = pairwise_overlap(scene.read(chosen.context, 32, 32))[0, 1]
    assert float(overlap) == pytest.approx(0.5, abs=0.05)
    assert all(chosen.context[0] < t < chosen.context[1] for t in chosen.targets)


def test_run_and_resume(tmp_path):
    torch.manual_seed(0)
    inference = Inference(NAS3R(presets.get("tiny")).eval())
    settings = StressSettings(("noise",), scenes=1, size=32, sift=False)
    first = run_stress(inference, settings, PROVENANCE, tmp_path)
    assert list(first["figures"]["noise"]) == ["0", "0.02", "0.05", "0.1", "0.2"]
    assert {"nas3r", "identity", "nearest context"} <= first["figures"]["noise"]["0"].keys()
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").glob("noise-*.json")}
    assert run_stress(inference, settings, PROVENANCE, tmp_path) == first
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert "Against noise" in (tmp_path / "results.md").read_text()


def test_unknown_factor_is_named():
    with pytest.raises(ValueError, match="gravity"):
        StressSettings(("gravity",))
