"""Fixtures of the model tests."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def recipe(reference_folder: Path) -> ModuleType:
    """The script that rebuilds synthetic official weights from tensor names."""
    spec = importlib.util.spec_from_file_location("make_checkpoint", reference_folder / "make_checkpoint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
