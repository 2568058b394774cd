"""The prepared GPU run, rehearsed on the CPU, with nothing installed but what it says it needs."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
ABSENT = ("jaxtyping", "tyro", "tqdm", "av", "viser", "cv2", "pycolmap", "scipy", "skimage", "torchmetrics")

BLOCKER = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def gpu():
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_step_is_rehearsed_with_the_packages_it_names(tmp_path, gpu):
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(BLOCKER.format(absent=ABSENT))
    environment = {**os.environ, "PYTHONPATH": str(blocker), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--rehearse", "--minutes", "15", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    content = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert content["rehearsal"] is True
    steps = content["steps"]
    assert list(steps) == list(gpu.STEPS)
    (row,) = steps["compositors"]["rows"]
    differences = [value for key, value in row.items() if key.startswith(("value", "gradient"))]
    assert len(differences) == 10  # three images, gradients of seven inputs
    assert max(differences) < 1e-4  # float32, against the reference
    assert {row["views"] for row in steps["network"]["rows"]} == {2, 3}
    assert steps["re10k"]["steps_per_s"] > 0
    assert steps["small-synthetic"]["weights_kept"]
    weights = tmp_path / "out" / "weights.safetensors"
    assert weights.stat().st_size < gpu.WEIGHTS_LIMIT
    with safe_open(weights, framework="pt") as file:
        assert file.metadata()["format"] == "nas3r"
    assert "compositors" in done.stdout


def test_what_fails_or_hangs_does_not_cost_the_others(gpu, monkeypatch, tmp_path):
    def fail(setting):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setitem(gpu.STEPS, "compositors", (fail, 1.0))
    result = gpu.run_step("compositors", None)
    assert "illegal memory access" in result["error"]
    arguments = argparse.Namespace(output=tmp_path, rehearse=True)
    assert "longer than" in gpu.guarded_step("network", arguments, 0.2)["error"]
    text = gpu.report({"compositors": result, "network": {"rows": [{"ms": 3}], "seconds": 1}})
    assert "failed: RuntimeError: CUDA error" in text
    assert "ms 3" in text


def test_without_a_gpu_it_says_so(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, str(SCRIPT), "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--rehearse" in done.stderr
