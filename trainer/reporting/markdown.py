"""Text for Markdown: what comes from a file or a name is shown, never interpreted."""

import re

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~&$!])")
_REPLACEMENT = "\ufffd"


class Markdown(str):
    """Text that is Markdown already: `escape` leaves it as it is."""


def escape(value: object) -> Markdown:
    """A value as one line of plain text, every character shown as it is."""
    if isinstance(value, Markdown):
        return value
    return Markdown(_SPECIAL.sub(r"\\\1", printable(str(value))))


def code(value: object) -> Markdown:
    """A value as a code span, which shows its characters as they are.

    Bars are replaced, because they would end the cell of a table even here.
    """
    text = printable(str(value)).replace("|", _REPLACEMENT)
    fence = "`" * (_longest_run(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return Markdown(f"{fence}{space}{text}{space}{fence}")


def block(text: str, language: str = "") -> Markdown:
    """Lines of text as a fenced code block."""
    lines = [printable(line) for line in text.splitlines()]
    fence = "`" * max(3, _longest_run(text) + 1)
    return Markdown("\n".join([f"{fence}{language}", *lines, fence]))


def printable(text: str) -> str:
    """The text with control characters and half surrogates replaced."""
    return "".join(
        letter if letter.isprintable() or letter == "\u00a0" else _REPLACEMENT
        for letter in text
    )


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
