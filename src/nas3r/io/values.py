"""Dataclasses of arrays in NPZ files, and back: what a program made, for a later run of the same program."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from nas3r.io.atomic import atomic_path
from nas3r.io.npz_files import array_names, read_arrays

T = TypeVar("T")


def save_value(path: Path, value: Any) -> None:
    """Writes a dataclass of arrays, tensors, numbers, strings and dataclasses, or lists and dicts of them.

    Args:
        path: Of an `.npz` file.
        value: What `load_value` can read by the types of its fields.

    Raises:
        OSError: If it cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **dict(_flat(value, "value")))


def load_value(path: Path, kind: type[T]) -> T:
    """Reads what `save_value` wrote.

    Args:
        path: Of the file.
        kind: What was written.

    Raises:
        ValueError: If the file is damaged or holds something else.
        OSError: If it is missing or may not be read.
    """
    names = array_names(path)
    arrays = dict(zip(names, read_arrays(path, names, "stage of a reconstruction"), strict=True))
    try:
        return _built(kind, "value", arrays)
    except (KeyError, TypeError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a {kind.__name__}, got something else ({error})") from error


def _flat(value: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    if is_dataclass(value):
        for f in fields(value):
            yield from _flat(getattr(value, f.name), f"{name}.{f.name}")
    elif isinstance(value, dict):
        yield from _flat(list(value.keys()), f"{name}.keys")
        yield from _flat(list(value.values()), f"{name}.values")
    elif isinstance(value, list | tuple):
        yield f"{name}.count", np.array(len(value))
        for i, item in enumerate(value):
            yield from _flat(item, f"{name}.{i}")
    elif isinstance(value, str):
        yield name, np.frombuffer(value.encode(), np.uint8)
    else:
        yield name, value.numpy() if isinstance(value, Tensor) else np.asarray(value)


def _built(kind: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        values = {f.name: _built(hints[f.name], f"{name}.{f.name}", arrays) for f in fields(kind)}
        return kind(**values)  # pyright: ignore[reportCallIssue]
    whole, parts = get_origin(kind), get_args(kind)
    if whole is dict:
        keys, values = (
            _built(list[part], f"{name}.{of}", arrays)
            for part, of in zip(parts, ("keys", "values"), strict=True)
        )
        return dict(zip(keys, values, strict=True))
    if whole in (list, tuple, Sequence):
        count = int(arrays[f"{name}.count"])
        kinds = parts[:1] * count if whole is not tuple or parts[-1] is ... else parts
        items = [_built(part, f"{name}.{i}", arrays) for i, part in enumerate(kinds[:count])]
        return tuple(items) if whole is tuple else items
    if kind is str:
        return arrays[name].tobytes().decode()
    if kind in (int, float, bool):
        return kind(arrays[name])
    # What is left is an array of numpy or torch, named so or in the notation of jaxtyping.
    array = arrays[name]
    return torch.from_numpy(array) if getattr(kind, "array_type", kind) is Tensor else array
