"""Text and JSON that a stranger may have written: bounded, of the shape expected.

A shape is what a value must be: a type; a function that says whether it fits; a tuple,
of as many shapes; a list of one shape, for any number of values; `Each`, for an object
with any keys; a dict, for an object with these keys and any others. `Maybe` allows
null, `Optional` allows that the key is not there.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: More than any file of this project's that is read as text at once.
MOST_BYTES = 1 << 30
MOST_JSON_BYTES = 1 << 26

_LARGEST = 1e300  # above it arithmetic overflows
_SHA256 = re.compile("[0-9a-f]{64}")
_SHOWN = 40


class DocumentError(ValueError):
    """A document that is not what was expected; says what is wrong, without the file.

    Attributes:
      line: where, counted from 1; None if it is about no one line.
    """

    def __init__(self, what: str, line: int | None = None):
        super().__init__(what)
        self.line = line

    def at(self, path: str | os.PathLike) -> str:
        """`FILE:LINE what`, or `FILE what`."""
        place = f":{self.line}" if self.line else ""
        return f"{os.fspath(path)}{place} {self}"


@dataclasses.dataclass(frozen=True)
class Maybe:
    """The shape of a value that may be null."""

    shape: Any


@dataclasses.dataclass(frozen=True)
class Optional:
    """The shape of a value whose key may be missing."""

    shape: Any


@dataclasses.dataclass(frozen=True)
class Each:
    """The shape of every value of an object."""

    shape: Any


def read_text(path: str | os.PathLike, most_bytes: int = MOST_BYTES) -> str:
    """Reads a UTF-8 text file.

    Raises:
      DocumentError: it is not a regular file, too large, or no text.
      OSError: it cannot be read.
    """
    if not Path(path).is_file() and Path(path).exists():
        raise DocumentError("is not a file.")
    with open(path, "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise DocumentError(f"is larger than {most_bytes:,} bytes.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError("is not a text file.") from error


def read_json(path: str | os.PathLike, shape: dict[str, Any]) -> dict[str, Any]:
    """Reads a JSON object of some shape.

    Raises:
      DocumentError: as `read_text`, or it is damaged or of another shape.
      OSError: it cannot be read.
    """
    try:
        document = json.loads(read_text(path, MOST_JSON_BYTES))
    except json.JSONDecodeError as error:
        raise DocumentError("is not complete JSON.", error.lineno) from error
    except RecursionError as error:
        raise DocumentError("is nested too deeply.") from error
    except DocumentError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise DocumentError("holds a number that is too long.") from error
    conform(document, shape)
    return document


def conform(value: Any, shape: Any, name: str = "") -> None:
    """Checks that a value is of a shape, see the module.

    Raises:
      DocumentError: naming the first key that is missing or wrong.
    """
    if isinstance(shape, Optional):
        conform(value, shape.shape, name)
    elif isinstance(shape, Maybe):
        if value is not None:
            conform(value, shape.shape, name)
    elif isinstance(shape, dict | Each):
        _require(isinstance(value, dict), value, name)
        for key, inner in _keys(value, shape, name):
            conform(value[key], inner, f"{name}.{key}" if name else key)
    elif isinstance(shape, list | tuple):
        _require(isinstance(value, list), value, name)
        shapes = shape if isinstance(shape, tuple) else shape * len(value)
        _require(len(value) == len(shapes), value, name)
        for number, (item, inner) in enumerate(zip(value, shapes, strict=True)):
            conform(item, inner, f"{name}[{number}]")
    elif isinstance(shape, type):
        _require(type(value) is shape, value, name)  # True is no int here
    else:
        _require(shape(value), value, name)


def is_number(value: Any) -> bool:
    """An int or float, not a boolean, and neither infinite nor beyond all use."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_LARGEST < value < _LARGEST or value != value


def is_count(value: Any) -> bool:
    """An int that counts something: 0 to 2^53."""
    return type(value) is int and 0 <= value <= 1 << 53


def between(low: float, high: float, kind: type = float) -> Callable[[Any], bool]:
    """The shape of numbers from `low` to `high`, of ints only if `kind` is int."""
    return lambda value: (
        is_number(value)
        and low <= value <= high
        and (kind is float or type(value) is int)
    )


def is_sha256(value: Any) -> bool:
    """A sha256 in hexadecimal."""
    return isinstance(value, str) and bool(_SHA256.fullmatch(value))


def is_file_name(value: Any) -> bool:
    """A name that, joined to a folder, lies in that folder."""
    return (
        isinstance(value, str)
        and value not in ("", ".", "..")
        and not {"/", "\\", "\0"} & set(value)
    )


def _keys(value: dict, shape: "dict | Each", name: str) -> list[tuple[str, Any]]:
    if isinstance(shape, Each):
        return [(key, shape.shape) for key in value]
    for key, inner in shape.items():
        if key not in value and not isinstance(inner, Optional):
            raise DocumentError(f"has no {f'{name}.{key}' if name else key!r}.")
    return [(key, inner) for key, inner in shape.items() if key in value]


def _require(holds: bool, value: Any, name: str) -> None:
    if holds:
        return
    try:
        shown = json.dumps(value)
    except RecursionError:
        shown = "something nested deeply"
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}..."
    raise DocumentError(f"{f'has {name} =' if name else 'holds'} {shown}, wrongly.")
