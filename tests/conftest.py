"""Fixtures shared by all tests."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

# Tests time nothing, and are the same on every run.
hypothesis.settings.register_profile("nas3r", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("nas3r")

# Beside other workers one thread each, here and in processes started by tests: more only wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

SHARED = Path(os.environ.get("NAS3R_SHARED", Path(__file__).parents[2] / "shared"))


def _folder(name: str) -> Path:
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(
            f"development files not found at {path} (set NAS3R_SHARED to the folder that holds '{name}')"
        )
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images and video with cameras and depth."""
    return _folder("data")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Folder of outputs of the whole official model, and of its published evaluation indices."""
    return _folder("reference")


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    """Key lists of the official files, and outputs of single modules of the published code."""
    return Path(__file__).parent / "reference"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
