"""Worker processes end with the process that started them."""

import os
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import os, sys, time
from pathlib import Path
from nas3r.data.parallel import run_all

def work(folder, index):
    (Path(folder) / f"{index}.pid").write_text(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    list(run_all(work, [(sys.argv[1], 0), (sys.argv[1], 1)], workers=2))
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition) -> bool:
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "pids"
    folder.mkdir()
    with subprocess.Popen([sys.executable, str(script), str(folder)]) as process:
        assert wait_until(lambda: len([p for p in folder.glob("*.pid") if p.read_text()]) == 2)
        process.send_signal(signal.SIGKILL)
    pids = [int(path.read_text()) for path in folder.glob("*.pid")]
    assert wait_until(lambda: not any(alive(pid) for pid in pids))
