"""Work that is killed before any of its changes to the file system harms nothing, and can be done again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kills import SCENARIOS

LEAST_KILLS = 10


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of POSIX")
@pytest.mark.parametrize("name", SCENARIOS)
def test_kills(name, saved_result, tmp_path):
    pytest.importorskip("av")
    shutil.copytree(saved_result, tmp_path / "result")
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, str(script), name, str(tmp_path)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
            "PYTHONPATH": str(script.parents[1] / "training"),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert int(done.stdout.split()[-2]) >= LEAST_KILLS
