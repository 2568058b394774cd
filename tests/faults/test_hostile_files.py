"""Whatever a file holds, reading it gives its content or one sentence, as ValueError or OSError."""

import contextlib
import json
import logging
import random
from pathlib import Path

import pytest
import torch
from samples import JSON, OTHER

from nas3r.io.json_files import parse_json, read_object, reading_fields
from nas3r.models import NAS3R, load, presets, save
from nas3r.reconstruction.storage import read_scene

ROUNDS = 60  # damaged copies of each kind of file, the same on every run
WRONG = [None, True, -1, 0, 3.5, "", "x", "\ud800", "../../x", [], {}, [[]], {"x": 1}, 10**400, 10**30]


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Cut short, with some bytes changed, overwritten, doubled or missing."""
    data, kind = bytearray(data), rng.randrange(5)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data) + 1)])
    for _ in range(rng.choice([1, 1, 3, 20])):
        place = rng.randrange(max(len(data), 1))
        end = place + rng.choice([1, 2, 4, 8])
        if kind == 1:
            data[place : place + 1] = bytes([data[place] ^ (1 << rng.randrange(8))])
        elif kind == 2:
            data[place:end] = bytes(rng.choice([0, 255, 127]) for _ in data[place:end])
        elif kind == 3:
            del data[place:end]
        else:
            data[place:place] = data[place:end]
    return bytes(data)


def with_wrong_value(value, rng: random.Random):
    """A copy of a JSON value in which one thing, at any depth, is another or missing."""
    copy = json.loads(json.dumps(value))
    places = [(None, None)]
    waiting = [copy]
    while waiting:
        node = waiting.pop()
        keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys]
    node, key = rng.choice(places)
    if node is None:
        return rng.choice(WRONG)
    if rng.random() < 0.2:
        del node[key]
    else:
        node[key] = rng.choice([*WRONG, float("inf"), float("nan"), -float("inf")])
    return copy


def read_anyhow(sample) -> None:
    with contextlib.suppress(ValueError, OSError):
        sample.read()


@pytest.mark.parametrize("make", [*JSON, *OTHER], ids=lambda make: make.__name__)
def test_damaged_bytes(make, tmp_path):
    sample = make(tmp_path)
    sample.read()
    whole, rng = sample.file.read_bytes(), random.Random(make.__name__)
    for _ in range(ROUNDS):
        sample.file.write_bytes(damaged(whole, rng))
        read_anyhow(sample)


@pytest.mark.parametrize("make", JSON, ids=lambda make: make.__name__)
def test_wrong_values(make, tmp_path):
    sample = make(tmp_path)
    whole, rng = json.loads(sample.file.read_text()), random.Random(make.__name__)
    for _ in range(3 * ROUNDS):
        sample.file.write_text(json.dumps(with_wrong_value(whole, rng)))
        read_anyhow(sample)


@pytest.mark.parametrize("make", JSON, ids=lambda make: make.__name__)
@pytest.mark.parametrize("text", ["[" * 100_000, '{"frames":' * 100_000, '{"a": ' + "9" * 5000 + "}", ""])
def test_endless_json(make, text, tmp_path):
    sample = make(tmp_path)
    sample.file.write_text(text)
    read_anyhow(sample)


@pytest.mark.parametrize("make", JSON, ids=lambda make: make.__name__)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_skipped(make, encoding, tmp_path):
    if make.__name__ == "shard_index":
        pytest.skip("comes as text, from a server too")
    sample = make(tmp_path)
    before = sample.read()
    sample.file.write_bytes(sample.file.read_text().encode(encoding))
    assert type(sample.read()) is type(before)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a JSON file"),
        ("[]", "expected a JSON object, got a list"),
        ("null", "expected a JSON object, got nothing"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "too many digits"),
    ],
)
def test_what_is_no_object_is_said_in_words(text, says, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=says) as raised:
        read_object(path)
    assert str(path) in str(raised.value)


def test_bytes_that_are_no_text():
    with pytest.raises(ValueError, match="no Unicode text"):
        parse_json(b'{"a": "\xff\xfe\xff"}', "a")


@pytest.mark.parametrize(
    ("take", "says"),
    [
        (lambda: {}["camera_angle_x"], "'camera_angle_x' is missing"),
        (lambda: [][3], "a list in it is too short"),
        (lambda: len(3), "of the wrong type"),  # type: ignore[arg-type]
        (lambda: int(float("inf")), "too large"),
    ],
)
def test_fields_that_do_not_fit_are_said_in_words(take, says):
    with pytest.raises(ValueError, match=says), reading_fields("a.json", "thing"):
        take()


def test_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    torch.manual_seed(0)
    save(NAS3R(presets.get("tiny")), path)
    head = path.read_bytes()[:4000]
    rng = random.Random(0)
    for _ in range(ROUNDS):
        path.write_bytes(damaged(head, rng))
        with pytest.raises(ValueError, match=r"w\.safetensors"):
            load(path)


def test_results(saved_result, tmp_path):
    import shutil

    folder = tmp_path / "result"
    shutil.copytree(saved_result, folder)
    files = ["reconstruction.json", "cameras.json", "scene.ply"]
    files += [
        str(path.relative_to(folder)) for name in ("depth", "images") for path in folder.glob(f"{name}/*")
    ]
    rng = random.Random(0)
    for name in files:
        whole = (folder / name).read_bytes()
        for _ in range(20):
            (folder / name).write_bytes(damaged(whole, rng))
            read_result_anyhow(folder)
        if name.endswith(".json"):
            for _ in range(ROUNDS):
                (folder / name).write_text(json.dumps(with_wrong_value(json.loads(whole), rng)))
                read_result_anyhow(folder)
        (folder / name).write_bytes(whole)
    assert read_scene(folder).views


def read_result_anyhow(folder: Path) -> None:
    with contextlib.suppress(ValueError, OSError):
        read_scene(folder)
