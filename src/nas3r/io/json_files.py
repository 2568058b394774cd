"""JSON files that nobody vouches for: every way in which one can be wrong is one sentence."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

_KINDS = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


def read_json(path: str | PathLike[str]) -> Any:
    """What a JSON file holds; a byte-order mark, and UTF-16 or UTF-32, are fine.

    Raises:
        ValueError: The file is no JSON, is nested too deeply, or holds an endless number; or it is no file.
        OSError: The file is missing or may not be read.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{path}: expected a file, got a pipe or a device")
    return parse_json(path.read_bytes(), str(path))


def parse_json(data: bytes | str, name: str) -> Any:
    """Like `read_json`, for the contents of a file; `name` is what messages call it."""
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: not a JSON file ({error.msg} in line {error.lineno})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name}: not a JSON file (it is no Unicode text)") from None
    except RecursionError:
        raise ValueError(f"{name}: its JSON is nested too deeply") from None
    except ValueError:  # Python converts no more than some thousand digits
        raise ValueError(f"{name}: its JSON holds a number with too many digits") from None


def read_object(path: str | PathLike[str]) -> dict[str, Any]:
    """Like `read_json`, for a file that holds an object.

    Raises:
        ValueError: Also where it holds something else, as `[]` or `null`.
        OSError: The file is missing or may not be read.
    """
    return as_object(read_json(path), str(path))


def as_object(value: Any, name: str) -> dict[str, Any]:
    """The value, if it is a JSON object.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a JSON object, got {_KINDS.get(type(value), 'nothing')}")
    return value


@contextmanager
def reading_fields(name: str, kind: str) -> Iterator[None]:
    """While the fields of a parsed file are taken apart: what does not fit becomes one sentence.

    Args:
        name: What messages call the file.
        kind: What it is meant to be, e.g. "transforms.json of nerfstudio".

    Raises:
        ValueError: For a missing field, or a value of another type or beyond all bounds.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{name}: not a readable {kind}: {error.args[0]!r} is missing") from error
    except IndexError as error:
        raise ValueError(f"{name}: not a readable {kind}: a list in it is too short") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{name}: not a readable {kind}: a value in it is of the wrong type") from error
    except OverflowError as error:
        raise ValueError(f"{name}: not a readable {kind}: a number in it is too large") from error
