"""The templates of the reports: pages, the model card, and sentences for all of them.

A sentence is written once, in a `.txt` template: programs print it, pages and the card
include it, and each form escapes the values in its own way.
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from support import figures, page, text
from trainer.evaluation.subgroups import records

FOLDER = Path(__file__).parent / "templates"
#: How the splits were made -> the consequence for the numbers.
SPLITS = {
    "identity": "Nobody appears in two splits: the model never saw these people.",
    "official": "The splits are the official ones of the data set.",
    "random": "Images were split at random: the same person can be in training and "
    "test, which flatters these numbers.",
}
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~&$!])")
_REPLACEMENT = "\ufffd"


class Markdown(str):
    """Text that is Markdown already: `escape` leaves it as it is."""


def html(name: str, /, **values: Any) -> Markup:
    """Renders `templates/NAME`; every value that is not Markup is escaped."""
    return Markup(_environment().get_template(name).render(values))


def markdown(name: str, /, **values: Any) -> str:
    """Renders `templates/NAME`; every value that is not Markdown is escaped."""
    plain = _environment().overlay(
        autoescape=False, finalize=escape, keep_trailing_newline=True
    )
    return plain.get_template(name).render(values).replace("\u00a0", " ")


def lines(name: str, /, **values: Any) -> list[str]:
    """Renders `templates/NAME`, a sentence a line, as plain text."""
    plain = _environment().overlay(autoescape=False)
    rendered = plain.get_template(name).render(values).replace("\u00a0", " ")
    return [line for line in rendered.splitlines() if line]


@functools.cache
def _environment() -> jinja2.Environment:
    environment = page.environment(FOLDER)
    environment.filters |= {"bounds": bounds, "number": number, "records": records}
    environment.filters |= {"code": code, "block": block, "yaml": yaml_scalar}
    environment.filters["jpeg"] = functools.partial(page.data_uri, "image/jpeg")
    environment.globals |= {"percent": text.percent, "points": text.points}
    return environment


def charts(panels: Mapping[str, figures.Panel]) -> dict[str, Markup]:
    """The figures of a page by name, as `<svg>` elements."""
    return {name: Markup(figures.svg(panel, name)) for name, panel in panels.items()}


def number(value: float | None) -> str:
    """1234.5 -> "1,234", 4.567 -> "4.57"; an undefined value is a dash."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def bounds(row: dict[str, Any], name: str) -> tuple[float | None, float | None]:
    """The interval of a column: NAME_low and NAME_high."""
    return row[f"{name}_low"], row[f"{name}_high"]


def escape(value: object) -> Markdown:
    """A value as one line of plain Markdown text, every character shown as it is."""
    if isinstance(value, Markdown):
        return value
    return Markdown(_SPECIAL.sub(r"\\\1", printable(str(value))))


def code(value: object) -> Markdown:
    """A value as a code span, which shows its characters as they are.

    Bars are replaced, because they would end the cell of a table even here.
    """
    shown = printable(str(value)).replace("|", _REPLACEMENT)
    fence = "`" * (_longest_run(shown) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return Markdown(f"{fence}{space}{shown}{space}{fence}")


def block(value: str, language: str = "") -> Markdown:
    """Lines of text as a fenced code block."""
    shown = [printable(line) for line in value.splitlines()]
    fence = "`" * max(3, _longest_run(value) + 1)
    return Markdown("\n".join([f"{fence}{language}", *shown, fence]))


def yaml_scalar(value: str | float) -> Markdown:
    """A value for the header of a card."""
    shown = printable(value) if isinstance(value, str) else value
    document = yaml.safe_dump(shown, width=float("inf"))
    return Markdown(document.removesuffix("...\n").removesuffix("\n"))


def printable(value: str) -> str:
    """The text with control characters and half surrogates replaced."""
    return "".join(
        letter if letter.isprintable() or letter == "\u00a0" else _REPLACEMENT
        for letter in value
    )


def _longest_run(value: str) -> int:
    return max((len(run) for run in re.findall("`+", value)), default=0)
