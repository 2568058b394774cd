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
    """A part as JSON values: tuples as lists, parts as objects that name their class."""
    if is_dataclass(value):
        plain = {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
        return {"class": type(value).__name__, **plain}
    if isinstance(value, dict):
        return {str(key): to_plain(x) for key, x in value.items()}
    return [to_plain(x) for x in value] if isinstance(value, list | tuple) else value


def from_plain(kind: type[T], values: Any, name: str = "config", *, complete: bool = False) -> T:
    """Inverse of `to_plain`.

    Args:
        kind: The part's class.
        values: JSON values.
        name: What messages call the part.
        complete: Refuse values of which a field is missing, which else keeps its default.

    Raises:
        ValueError: For unknown fields or kinds, for missing fields, and for values that the part refuses.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}: expected an object, got {values!r:.80}")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    given = {key: value for key, value in values.items() if key != "class"}
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{name}: unknown fields {unknown}; is the file of another version?")
    missing = [key for key, f in known.items() if key not in given and (complete or not _has_default(f))]
    if missing:
        raise ValueError(f"{name}: {missing[0]} is missing")
    read = {key: _read(value, hints[key], f"{name}.{key}", complete) for key, value in given.items()}
    return kind(**read)


def _has_default(f: Any) -> bool:
    return f.default is not MISSING or f.default_factory is not MISSING


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _read(value: Any, hint: Any, name: str, complete: bool) -> Any:
    if isinstance(value, list):
        (of_items,) = {x for h in _alternatives(hint) for x in get_args(h) if is_dataclass(x)} or (Any,)
        return tuple(_read(x, of_items, f"{name}[{i}]", complete) for i, x in enumerate(value))
    kinds: dict[str, Any] = {
        h.__name__: h for h in _alternatives(hint) if isinstance(h, type) and is_dataclass(h)
    }
    if not kinds or value is None:
        return value
    told = value.get("class") if isinstance(value, Mapping) else None
    if told is None and len(kinds) == 1:
        (told,) = kinds
    if told not in kinds:
        raise ValueError(f"{name}: expected one of {', '.join(kinds)}, got {told!r:.80}")
    return from_plain(kinds[told], value, name, complete=complete)


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
