"""Accuracy by subgroup in words, and as a section of the report."""

import pandas as pd
from markupsafe import Markup

from support import figures
from support.figures import MUTED, PRIMARY, SECONDARY
from support.text import interval, percent
from trainer.evaluation import bootstrap, subgroups
from trainer.evaluation.group_rates import MIN_IMAGES, MIN_PEOPLE, RATES
from trainer.reporting import template
from trainer.reporting.forest import forest

NOTE = (
    "The labels that make the groups were perceived by annotators and are noisy "
    "themselves: part of a gap can be theirs."
)
_SHOWN = 15


def sentences(table: pd.DataFrame) -> list[str]:
    """The lowest accuracy, and how many gaps are real."""
    lowest = subgroups.lowest_accuracy(table)
    if lowest is None:
        return ["Every group is too small to judge by."]
    bounds = lowest[["accuracy_low", "accuracy_high"]]
    groups = table[table["kind"] != subgroups.OVERALL]
    chance = percent(1 - bootstrap.LEVEL)
    return [
        f"Too small to judge (fewer than {MIN_PEOPLE} people or {MIN_IMAGES} images): "
        f"{groups['small'].sum()} of {len(groups)} groups. Lowest accuracy of the "
        f"others: {lowest['title']}, {percent(lowest['accuracy'])} "
        f"({interval(bounds, percent)}), {lowest['n']:,} images of "
        f"{lowest['people']:,} people; all images: {percent(table['accuracy'][0])}.",
        f"{len(subgroups.surviving_gaps(table))} of {subgroups.tested(table):,} tested "
        "gaps to the rest survive a correction for testing all of them (chance of any "
        f"false alarm: about {chance}).",
    ]


def excluded(table: pd.DataFrame) -> list[str]:
    """Sentences on images of which an external table says nothing."""
    total = table["n"][0]
    inside = table.groupby("grouping", sort=False)["n"].sum()
    return [
        f"{name}: {total - count:,} of {total:,} images have no value and are excluded."
        for name, count in inside.items()
        if count < total
    ]


def section(table: pd.DataFrame) -> Markup:
    """The section as HTML, of a table of `evaluation.subgroups`."""
    shown = subgroups.clearest_gaps(table, _SHOWN)
    return template.render(
        "subgroups.html",
        sentences=[*sentences(table), *excluded(table)],
        note=NOTE,
        figure=Markup(_figure(shown)) if len(shown) else None,
        groups=subgroups.records(table),
        rates=RATES,
        min_people=MIN_PEOPLE,
        min_images=MIN_IMAGES,
    )


def _figure(rows: pd.DataFrame) -> str:
    colors = rows["accuracy_gap"].lt(0).map({True: SECONDARY, False: PRIMARY})
    panel = forest(
        "Accuracy gap to the rest",
        names=list(rows["title"]),
        values=rows["accuracy_gap"],
        intervals=rows[["accuracy_gap_low", "accuracy_gap_high"]].to_numpy(),
        colors=list(colors.mask(rows["small"] == 1, MUTED)),
        markers=list(rows["accuracy_gap_survives"].map({1: "o", 0: "|"})),
        zero=True,
    )
    height = 1.0 + 0.28 * len(rows)
    layout = figures.Layout(4.8, height, left=2.0, right=0.12, bottom=0.5, top=0.4)
    return figures.svg(panel, "subgroup-gaps", layout)
