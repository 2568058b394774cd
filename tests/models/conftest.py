"""Fixtures of the model tests."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    """Key lists of the official files, and outputs of single modules of the published model."""
    return REFERENCE


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    """The script that rebuilds synthetic official weights from tensor names."""
    spec = importlib.util.spec_from_file_location("make_checkpoint", REFERENCE / "make_checkpoint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
