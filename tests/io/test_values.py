"""Dataclasses of arrays survive a file; damaged ones are refused."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nas3r.io.values import load_value, save_value


@dataclass(frozen=True)
class Inner:
    views: tuple[int, int]
    share: float
    known: Bool[np.ndarray, "n"]


@dataclass(frozen=True)
class Outer:
    maps: Float[Tensor, "v h w"]
    parts: list[Inner]
    reasons: dict[int, str]
    sizes: tuple[float, ...]


def outer() -> Outer:
    inner = [Inner((1, 2), 0.5, np.array([True, False])), Inner((3, 4), -1.0, np.zeros(0, bool))]
    return Outer(torch.rand(2, 3, 4), inner, {7: "shows nothing – ünbekannt", 9: ""}, (1.0, 2.5, 3.0))


def test_round_trip(tmp_path: Path) -> None:
    save_value(tmp_path / "a.npz", outer_ := outer())
    found = load_value(tmp_path / "a.npz", Outer)
    assert torch.equal(found.maps, outer_.maps)
    assert [(i.views, i.share) for i in found.parts] == [((1, 2), 0.5), ((3, 4), -1.0)]
    assert found.parts[0].known.tolist() == [True, False]
    assert found.reasons == outer_.reasons
    assert found.sizes == outer_.sizes


def test_a_tensor_alone(tmp_path: Path) -> None:
    save_value(tmp_path / "a.npz", torch.arange(3.0))
    assert load_value(tmp_path / "a.npz", Tensor).tolist() == [0, 1, 2]


def test_another_kind_is_refused(tmp_path: Path) -> None:
    save_value(tmp_path / "a.npz", outer().parts[0])
    with pytest.raises(ValueError, match="expected a Outer"):
        load_value(tmp_path / "a.npz", Outer)


def test_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_value(path, outer())
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.npz"):
            load_value(path, Outer)
