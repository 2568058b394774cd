"""Configs made of parts: frozen dataclasses with checked values that survive a round trip through JSON.

Configs also come from files, which nobody vouches for: every value has its type and a bound.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

MOST_CHANNELS = 1 << 14
MOST_LAYERS = 256

T = TypeVar("T")


def integer(default: int, *, least: int = 1, most: int = MOST_CHANNELS) -> Any:
    """A field of a part that holds an integer within bounds."""
    return field(default=default, metadata={"least": least, "most": most})


def integers(default: tuple[int, ...], *, least: int = 1, most: int = MOST_CHANNELS) -> Any:
    """A field of a part that holds integers within bounds."""
    return field(default=default, metadata={"least": least, "most": most})


def check_part(part: Any) -> None:
    """Checks every field of a part against its type and bounds; for `__post_init__`.

    Raises:
        ValueError: For a value of another type, or beyond its bounds.
    """
    hints = get_type_hints(type(part))
    for f in fields(part):
        _check(f.name, getattr(part, f.name), hints[f.name], f.metadata)


def to_plain(value: Any) -> Any:
    """A part as JSON values; where a field may hold different parts, each tells its kind."""
    if is_dataclass(value):
        plain = {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
        return {"kind": type(value).__name__, **plain}
    return [to_plain(x) for x in value] if isinstance(value, tuple) else value


def from_plain(kind: type[T], values: Any, name: str = "config") -> T:
    """Inverse of `to_plain`. Fields that are not there keep their default.

    Args:
        kind: The part's class.
        values: JSON values.
        name: What messages call the part.

    Raises:
        ValueError: For unknown fields or kinds, and for values that the part refuses.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}: expected an object, got {values!r:.80}")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    given = {key: value for key, value in values.items() if key != "kind"}
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{name}: unknown fields {unknown}; is the file from a newer version?")
    if missing := [key for key, f in known.items() if key not in given and not _has_default(f)]:
        raise ValueError(f"{name}: {missing[0]} is missing")
    return kind(**{key: _read(value, hints[key], f"{name}.{key}") for key, value in given.items()})


def _has_default(f: Any) -> bool:
    return f.default is not MISSING or f.default_factory is not MISSING


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _read(value: Any, hint: Any, name: str) -> Any:
    parts = [h for h in _alternatives(hint) if is_dataclass(h)]
    if not parts or value is None:
        return tuple(value) if isinstance(value, list) else value
    told = value.get("kind") if isinstance(value, Mapping) else None
    kinds = {part.__name__: part for part in parts}  # pyright: ignore[reportAttributeAccessIssue]
    if told is None and len(kinds) == 1:
        (told,) = kinds
    if told not in kinds:
        raise ValueError(f"{name}: expected one of {', '.join(kinds)}, got {told!r:.80}")
    return from_plain(kinds[told], value, name)  # pyright: ignore[reportArgumentType]


def _check(name: str, value: Any, hint: Any, bounds: Mapping[str, int]) -> None:
    options = _alternatives(hint)
    if value is None and NoneType in options:
        return
    options = tuple(option for option in options if option is not NoneType)
    if all(is_dataclass(option) for option in options):
        if not isinstance(value, options):
            kinds = " or ".join(option.__name__ for option in options)
            raise ValueError(f"{name}: expected {kinds}, got {value!r:.80}")
        return
    (option,) = options
    if get_origin(option) is Literal:
        if value not in get_args(option):
            raise ValueError(f"{name}: expected one of {list(get_args(option))}, got {value!r:.80}")
    elif get_origin(option) is tuple:
        _check_tuple(name, value, get_args(option), bounds)
    elif option is bool:
        if type(value) is not bool:
            raise ValueError(f"{name}: expected true or false, got {value!r:.80}")
    else:
        _check_number(name, value, option, bounds)


def _check_tuple(name: str, value: Any, kinds: tuple[Any, ...], bounds: Mapping[str, int]) -> None:
    length = None if kinds[-1] is ... else len(kinds)
    if not isinstance(value, tuple) or not value or (length or len(value)) != len(value):
        raise ValueError(f"{name}: expected a list of {length or 'some'} numbers, got {value!r:.80}")
    for x in value:
        _check_number(name, x, kinds[0], bounds)


def _check_number(name: str, value: Any, kind: Any, bounds: Mapping[str, int]) -> None:
    if kind is int:
        least, most = bounds.get("least", 1), bounds.get("most", MOST_CHANNELS)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{name}: expected an integer from {least} to {most}, got {value!r:.80}")
    elif not isinstance(value, float | int) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a number, got {value!r:.80}")
