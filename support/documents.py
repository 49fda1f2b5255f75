"""Text and JSON that a stranger may have written: bounded, and of the type expected.

The types are TypedDicts, see `Document`, and dataclasses; pydantic checks them.
"""

import functools
import os
import textwrap
from pathlib import Path
from typing import Annotated, TypeVar

import pydantic
from pydantic import Field
from typing_extensions import TypedDict

#: More than any file of this project's that is read as text at once.
MOST_BYTES = 1 << 30
MOST_JSON_BYTES = 1 << 26

Count = Annotated[int, Field(ge=0, le=1 << 53)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

_T = TypeVar("_T")


class Document(TypedDict):
    """Base of the JSON objects that may have keys that are not declared."""

    # "2" is not a number here, and neither is true.
    __pydantic_config__ = pydantic.ConfigDict(strict=True, extra="allow")


class DocumentError(ValueError):
    """A document that is not what was expected; says what is wrong, not where."""

    def at(self, path: str | os.PathLike) -> str:
        """`FILE what`."""
        return f"{os.fspath(path)} {self}"


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


def read_json(path: str | os.PathLike, kind: type[_T]) -> _T:
    """Reads a JSON object of a type.

    Raises:
      DocumentError: as `read_text`, or it is damaged or of another type.
      OSError: it cannot be read.
    """
    return parse_json(read_text(path, MOST_JSON_BYTES), kind)


def parse_json(text: str | bytes, kind: type[_T]) -> _T:
    """Parses a JSON object of a type.

    Raises:
      DocumentError: it is damaged or of another type; names the first wrong key.
    """
    try:
        return _adapter(kind).validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise DocumentError(f"is not complete JSON ({first['msg']}).") from error
        key = ".".join(map(str, first["loc"])) or "the document"
        what = first["msg"].removeprefix("Value error, ")
        what = textwrap.shorten(what, 100, placeholder=" ...")  # many choices
        problem = "is damaged or of another version"
        raise DocumentError(f"{problem}: {key}: {what}.") from error


@functools.cache  # making one takes milliseconds
def _adapter(kind: type[_T]) -> pydantic.TypeAdapter[_T]:
    return pydantic.TypeAdapter(kind)
