"""The templates of the reports, and how they format numbers."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from trainer.reporting.wording import PERCENT, decimal, duration, percent, points


def render(name: str, **values: Any) -> Markup:
    """Renders `templates/NAME`; every value that is not Markup is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "decimal": decimal,
        "duration": duration,
        "number": number,
        "percent": percent,
        "points": points,
        "points_range": functools.partial(_range, formatter=points),
        "range": _range,
        "thousands": "{:,}".format,
    }
    return Markup(environment.get_template(name).render(values))


def number(value: float | None) -> str:
    """1234.5 -> "1,234", 4.567 -> "4.57"; an undefined value is a dash."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _range(row: dict[str, Any], name: str, formatter: Callable = percent) -> str:
    """NAME_low and NAME_high of a row: "92.8 to 95.6 %"; a dash if undefined."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if low is None:
        return "–"
    return f"{formatter(low).removesuffix(PERCENT)} to {formatter(high)}"
