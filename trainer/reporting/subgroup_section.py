"""The report's section about subgroups: words, a chart of gaps, the whole table."""

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from support import figures
from support.figures import INK, MUTED, PRIMARY, SECONDARY
from support.page import Html, tag
from trainer.evaluation.subgroup_table import Group, Grouping, Rate, Table
from trainer.subgroups import NOTE, percent, percents, points, sentences, telling

_SHOWN = 15
_TITLE_LENGTH = 34
_GREY = "grey"
_COLUMNS = ("accuracy", "false_positive_rate", "false_negative_rate")
_NO_BREAK = "\u00a0%"


def section(table: Table) -> Html:
    """The section as HTML; every name is escaped."""
    shown = telling(table, _SHOWN)
    return tag(
        "section",
        tag("h2", "For whom it is right"),
        *[tag("p", text.replace(" %", _NO_BREAK)) for text in sentences(table)],
        *_missing(table),
        tag("p", NOTE, class_="note"),
        *([_figure(shown)] if shown else []),
        tag(
            "details",
            tag("summary", f"All {len(table.groups)} groups"),
            _explanation(table),
            _groups_table(table),
        ),
        tag(
            "details",
            tag("summary", "Equalized-odds differences"),
            tag(
                "p",
                "The larger of two differences: between the highest and the lowest "
                "false-positive rate of the groups, and the same of the "
                "false-negative rate (Hardt, Price and Srebro, 2016). It is never "
                "below zero, so chance alone lifts it.",
                class_="small",
            ),
            _odds_table(table),
        ),
    )


def gaps(groups: list[Group]) -> figures.Panel:
    """A forest plot: each group's accuracy minus the rest's, with its interval.

    Args:
      groups: each with a gap and its interval, the first at the top.
    """

    def draw(axes: Axes) -> None:
        places = range(len(groups))
        axes.axvline(0, color=INK, linewidth=1)
        for place, group in zip(places, groups, strict=True):
            _mark(axes, place, group)
        axes.set_ylim(len(groups) - 0.4, -0.6)
        # Names may hold dollar signs, which matplotlib would take for formulas.
        axes.set_yticks(
            places, [_short(group.title) for group in groups], parse_math=False
        )
        axes.tick_params(axis="y", labelsize=9)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(_point_label))
        axes.set_xlabel("percentage points")
        axes.set_title("Accuracy minus the rest's", x=0)

    return draw


def _mark(axes: Axes, place: int, group: Group) -> None:
    rate = group.accuracy
    color = SECONDARY if rate.gap < 0 else PRIMARY
    if group.small:
        color = MUTED
    axes.plot(rate.gap_interval, [place, place], color=color, linewidth=1.5)
    if rate.survives:
        axes.plot(rate.gap, place, "o", color=color, markersize=6)
    else:
        axes.plot(rate.gap, place, "|", color=color, markersize=9, markeredgewidth=2)


def _point_label(value: float, _position: int) -> str:
    return points(value).removesuffix(".0").lstrip("+")


def _short(title: str) -> str:
    return title if len(title) <= _TITLE_LENGTH else title[: _TITLE_LENGTH - 1] + "…"


def _figure(groups: list[Group]) -> Html:
    layout = figures.Layout(
        width=4.8,
        height=0.95 + 0.26 * len(groups),
        left=2.0,
        right=0.12,
        bottom=0.5,
        top=0.4,
    )
    caption = (
        "How much more (right) or less (left) often the model is right for a group "
        "than for everybody else: the groups asked for and the clearest gaps. Of an "
        "attribute one side is shown; the other's gap is the same with the other sign. "
        "Lines are 95 % intervals; a dot marks a gap that survives the correction for "
        "looking at all of them. Grey groups are small."
    )
    return tag(
        "figure",
        Html(figures.svg(gaps(groups), "subgroup-gaps", layout)),
        tag("figcaption", caption.replace(" %", _NO_BREAK)),
        class_="chart",
        style="max-width: 38rem",
    )


def _missing(table: Table) -> list[Html]:
    return [
        tag(
            "p",
            f"{part.name}: {part.missing:,} of {table.overall.n:,} images have no "
            "value in the outside table and are left out of its groups.",
        )
        for part in table.groupings
        if part.missing
    ]


def _explanation(table: Table) -> Html:
    text = (
        "Values and gaps to everybody else in percentage points, 95 % intervals below "
        "(bootstrap over people, both sides of a gap in the same draws). Bold gaps "
        "survive the correction for all of them (single-step maxT, Westfall and Young, "
        f"1993). Grey is what has fewer than {table.min_people} people or "
        f"{table.min_images} images, of a gap on either side: it is not tested and no "
        "such group is called the worst. A dash is undefined."
    )
    return tag("p", text.replace(" %", _NO_BREAK), class_="small")


def _groups_table(table: Table) -> Html:
    names = ["Group", "images", "people"]
    for name in ("accuracy", "false pos.", "false neg."):
        names += [name, "gap"]
    rows = [_group_row(group) for group in (table.overall, *table.groups)]
    return _table(names, rows)


def _group_row(group: Group) -> Html:
    cells = [
        tag("th", group.title, style="min-width: 7.5rem"),
        tag("td", f"{group.n:,}", class_="number"),
        tag("td", f"{group.people:,}", class_="number"),
    ]
    for name in _COLUMNS:
        cells += _rate_cells(getattr(group, name))
    return tag("tr", *cells, class_=_GREY * group.small)


def _rate_cells(rate: Rate) -> list[Html]:
    gap = points(rate.gap)
    below = " to ".join(points(bound) for bound in rate.gap_interval or ())
    return [
        _cell(_number(rate.value), _range(rate.interval), rate.small),
        _cell(tag("strong", gap) if rate.survives else gap, below, rate.p is None),
    ]


def _cell(value: str, below: str, grey: bool) -> Html:
    lines = [value]
    if below:
        lines += [Html("<br>"), tag("span", below, class_="small")]
    return tag("td", *lines, class_=f"number {_GREY}" if grey else "number")


def _number(value: float | None) -> str:
    return percent(value).removesuffix(" %")


def _range(bounds: tuple[float, float] | None) -> str:
    return percents(bounds).removesuffix(" %") if bounds else ""


def _odds_table(table: Table) -> Html:
    found = [
        part for part in table.groupings if part.equalized_odds_difference is not None
    ]
    found.sort(key=lambda part: (part.small, -part.equalized_odds_difference))
    names = ["Grouping", "points", "95\u00a0% interval"]
    return _table(names, [_odds_row(part) for part in found])


def _odds_row(part: Grouping) -> Html:
    title = part.name.replace("_", " ").replace("*", " × ")
    return tag(
        "tr",
        tag("th", title),
        tag("td", _number(part.equalized_odds_difference), class_="number"),
        tag("td", _range(part.interval) or "–", class_="number"),
        class_=_GREY * part.small,
    )


def _table(names: list[str], rows: list[Html]) -> Html:
    first, *others = names
    head = [tag("th", first), *[tag("th", name, class_="number") for name in others]]
    return tag(
        "div",
        tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows)),
        class_="scroll dense",
    )
