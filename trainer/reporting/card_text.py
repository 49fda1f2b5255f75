"""What a model card says of the subgroups."""

from typing import Any

from trainer import subgroups
from trainer.evaluation.subgroup_table import Group, Table
from trainer.reporting.markdown import Markdown, escape

_LOWEST, _CLEAREST = 5, 12
_SMALL_NAMED = 12


def subgroup_facts(table: Table | None) -> dict[str, Any] | None:
    """What the card shows of the subgroups: sentences, rows, the small groups."""
    if table is None:
        return None
    large = [
        group
        for group in table.groups
        if not group.small and group.accuracy.value is not None
    ]
    lowest = sorted(large, key=lambda group: (group.accuracy.value, group.name))
    shown = {group.name: group for group in lowest[:_LOWEST]}
    shown |= {group.name: group for group in subgroups.telling(table, _CLEAREST)}
    rows = sorted(shown.values(), key=lambda group: group.accuracy.value)
    small = [group.title for group in table.groups if group.small]
    more = len(small) - _SMALL_NAMED
    named = ", ".join(escape(title) for title in small[:_SMALL_NAMED])
    return {
        "sentences": subgroups.sentences(table),
        "note": subgroups.NOTE,
        "rows": [_group_row(group) for group in rows],
        "count": len(table.groups),
        "min_people": table.min_people,
        "min_images": table.min_images,
        "small": Markdown(named + (f" and {more:,} more" if more > 0 else "")),
    }


def _group_row(group: Group) -> dict[str, str]:
    rate = group.accuracy
    gap = subgroups.points(rate.gap)
    if rate.gap_interval:
        low, high = (subgroups.points(bound) for bound in rate.gap_interval)
        gap = f"{gap} ({low} to {high})"
    accuracy = subgroups.percent(rate.value)
    if rate.interval:
        accuracy += f" ({subgroups.percents(rate.interval)})"
    return {
        "title": group.title,
        "n": f"{group.n:,}",
        "people": f"{group.people:,}",
        "accuracy": accuracy,
        "gap": gap,
        "mark": "small" if group.small else "survives" if rate.survives else "",
    }
