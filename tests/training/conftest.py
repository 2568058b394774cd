"""Fixtures of the training tests."""

from pathlib import Path

import pytest
from small_runs import SMALLEST, Sliding, make_config

from nas3r.models import ModelConfig
from nas3r.training.config import TrainConfig


@pytest.fixture
def config() -> TrainConfig:
    return make_config()


@pytest.fixture
def smallest() -> ModelConfig:
    return SMALLEST


@pytest.fixture
def loader() -> Sliding:
    return Sliding()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"
