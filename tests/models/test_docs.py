"""The code of docs/models.md runs, and its table of presets is true."""

import re
from pathlib import Path

import pytest
import torch

from nas3r.models import build, presets

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) > 4
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert names["cameras"].world_from_camera.shape == (1, 1, 4, 4)
    assert names["loss"].isfinite()
    assert names["prediction"].depth.shape == (1, 3, 64, 64)


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| `[\w-]+` \| [\d.,]+ M", line)]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


def test_every_preset_is_listed():
    listed = {row[0] for row in rows()}
    assert listed == {name for name in presets.names() if not name.endswith("-I")}
    assert {f"{name}-I" for name in listed} <= set(presets.names())


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_presets_are_as_listed(row):
    name, parameters, family, sizes, encoder, decoder, _ = row
    config = presets.get(name)
    with torch.device("meta"):
        count = sum(p.numel() for p in build(config).parameters())
    # Printed with three digits at least.
    assert float(parameters.removesuffix(" M").replace(",", "")) == pytest.approx(count / 1e6, rel=1e-2)
    assert family == config.family
    assert sizes == f"{config.image_size}, {config.patch_size}"
    assert encoder == f"{config.encoder.depth} x {config.encoder.width}"
    assert decoder.startswith(f"{config.decoder.depth} x {config.decoder.width}")
