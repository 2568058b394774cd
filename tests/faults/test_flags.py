"""Flags that make no sense are refused before any work, in one sentence, by every verb."""

import dataclasses
import importlib
import subprocess
import sys
import typing

import pytest
import tyro

from nas3r.bounds import MOST_THREADS, Within, bounded_fields, check_bounds
from nas3r.cli.main import VERBS, main
from nas3r.devices import check_device
from nas3r.reconstruction import ReconstructOptions, reconstruct

BAD_INPUT, NO_RESOURCES = 2, 3


def commands() -> list[tuple[str, list[str], type]]:
    """Every command of every verb, and the words that call it."""
    found = []
    for verb in VERBS:
        command = importlib.import_module(f"nas3r.cli.{verb}").Command
        for kind in typing.get_args(command) or (command,):
            words, kind = [verb], typing.get_args(kind)[0] if typing.get_origin(kind) else kind
            if typing.get_args(command):
                words.append(_name(kind))
            found.append((" ".join(words), words, kind))
    return found


def _name(kind: type) -> str:
    return kind.__name__.removesuffix("Command").lower().replace("novelviews", "nvs")


def numeric_fields(kind: type) -> list[tuple[str, typing.Any, bool]]:
    """Name, annotation and whether a number is whole, of each field of numbers."""
    found = []
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if name == "options":
            found += numeric_fields(ReconstructOptions)
            continue
        if numbers := {int, float} & leaves(hint):
            found.append((name, hint, float not in numbers))
    return found


def leaves(hint: typing.Any) -> set[typing.Any]:
    """The types that an annotation is made of."""
    if hasattr(hint, "__metadata__"):
        return leaves(hint.__origin__)
    if typing.get_origin(hint) is typing.Literal:
        return set()
    return set().union(*map(leaves, typing.get_args(hint))) if typing.get_args(hint) else {hint}


FIELDS = [
    pytest.param(words, kind, name, hint, whole, id=f"{label} --{name.replace('_', '-')}")
    for label, words, kind in commands()
    for name, hint, whole in numeric_fields(kind)
]


@pytest.mark.parametrize(("words", "kind", "name", "hint", "whole"), FIELDS)
def test_every_number_has_bounds_and_is_held_to_them(words, kind, name, hint, whole, tmp_path, capsys):
    bounds = [extra for extra in typing.get_args(hint)[1:] if isinstance(extra, Within)]
    assert bounds, f"{name}: a number without bounds"
    wrong = ["-1000000", "9" * 400 if whole else "1e999"] + ([] if whole else ["nan", "-inf"])
    flag = "--" + name.replace("_", "-")
    for value in wrong:
        if float(value) in bounds[0]:
            continue
        times = 2 if "tuple" in str(hint) else 1
        given = [*words, *positional(kind), flag, *[value] * times]
        if any(f.name in ("out", "output") for f in dataclasses.fields(kind)):
            given += ["-o", str(tmp_path / "out")]
        assert main(given) == BAD_INPUT, given
        said = capsys.readouterr().err.strip().splitlines()
        assert said[-1].startswith(f"nas3r: {flag}: expected"), said
        assert list(tmp_path.iterdir()) == []


def positional(kind: type) -> list[str]:
    """Words for what must be given."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return [
        "nowhere"
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
        and tyro.conf.Positional[int].__metadata__[0] in getattr(hints[f.name], "__metadata__", ())
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"views": 1}, "views: expected an integer of at least 2, got 1"),
        ({"focal_35mm": 1e30}, "focal 35mm: expected a number from 1 to 3,000"),
        ({"refine": float("inf")}, "refine: expected a number above 0, got inf"),
        ({"size": 10**500}, "size: expected an integer from 1 to 65,536"),
        ({"detail": -5}, "detail: expected"),
    ],
)
def test_options_in_python_are_held_to_the_same_bounds(options, says):
    with pytest.raises(ValueError, match=says):
        reconstruct("no such file", ReconstructOptions(**options))


def test_bounds_are_inclusive_but_for_above():
    assert 1 in Within(1, 2)
    assert 2 in Within(1, 2)
    assert 0 not in Within(above=0)
    assert 1e-9 in Within(above=0)
    assert list(bounded_fields(ReconstructOptions()))
    check_bounds(ReconstructOptions())


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_where_there_is_none(device, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="no usable CUDA device"):
        check_device(device)


@pytest.mark.parametrize("device", ["gpu", "", "cuda:", "cuda:x", "cpu:1:2", "meta", "CUDA", "cuda:99999"])
def test_devices_that_do_not_exist(device):
    with pytest.raises(ValueError, match="device"):
        check_device(device)


def test_the_default_device_and_the_cpu_are_fine():
    check_device(None)
    check_device("cpu")


def shell(command: str) -> subprocess.CompletedProcess:
    nas3r = f"{sys.executable} -m nas3r.cli.main"
    script = f"set -o pipefail; {command.replace('nas3r', nas3r)}"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("nas3r --help | true", 0),
        ("nas3r --help | head -1", 0),
        ("nas3r train --help | true", 0),
        ("nas3r nothing 2>&1 | true", BAD_INPUT),
        ("nas3r --print-completion bash | true", 0),
        ("nas3r --version 2>&-", 0),
        ("nas3r --version >&-", 0),
        ("nas3r nothing <&- >&- 2>&-", BAD_INPUT),
        ("nas3r --version > /dev/full", NO_RESOURCES),
    ],
)
def test_streams_that_nobody_reads(command, code):
    done = shell(command)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_threads_have_an_end():
    assert MOST_THREADS < 100_000
