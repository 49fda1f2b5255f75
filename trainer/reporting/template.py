"""The templates of the reports, and how they format numbers."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from support import page
from support.text import PERCENT, percent, points

FOLDER = Path(__file__).parent / "templates"


def render(name: str, **values: Any) -> Markup:
    """Renders `templates/NAME`; every value that is not Markup is escaped."""
    environment = page.environment(FOLDER)
    environment.filters |= {
        "number": number,
        "points_range": functools.partial(low_to_high, formatter=points),
        "range": low_to_high,
    }
    return Markup(environment.get_template(name).render(values))


def number(value: float | None) -> str:
    """1234.5 -> "1,234", 4.567 -> "4.57"; an undefined value is a dash."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def low_to_high(row: dict[str, Any], name: str, formatter: Callable = percent) -> str:
    """NAME_low and NAME_high of a row: "92.8 to 95.6 %"; a dash if undefined."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if low is None:
        return "–"
    return f"{formatter(low).removesuffix(PERCENT)} to {formatter(high)}"
