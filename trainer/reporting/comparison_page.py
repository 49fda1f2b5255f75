"""A comparison as a table in the terminal, as CSV, and as an HTML page."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from support import figures, files
from support.figures import MUTED, PRIMARY
from support.text import decimal, percent
from trainer.evaluation import group_rates
from trainer.evaluation.comparison import DRAWS, Comparison, Group, differing_options
from trainer.reporting import template
from trainer.reporting.forest import forest, wrapped

PAGE, TABLE = "comparison.html", "leaderboard.csv"
_MARKERS = "osD^v<>pPX*hd"

#: Figure -> column of the leaderboard, its factor, and the axis label.
_COSTS = {
    "train-rate": ("train_images_per_second", 1, "training images/s"),
    "parameters": ("parameters", 1e-6, "million parameters"),
    "train-time": ("train_seconds", 1 / 60, "training minutes"),
    "inference": ("inference_ms_per_image", 1, "inference ms per image"),
}


def write(comparison: Comparison, folder: Path) -> Path:
    """Writes `comparison.html`, `leaderboard.csv` and the charts as PNG files.

    Returns:
      The path of the HTML file.

    Raises:
      UserError: exit 4, the folder cannot be written.
    """
    rows = leaderboard(comparison)
    panels = _panels(comparison, rows)
    with files.output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        files.atomic_write(folder / TABLE, pd.DataFrame(rows).to_csv(index=False))
        for name, panel in panels.items():
            png = figures.png([panel])
            files.atomic_write(folder / f"comparison-{name}.png", png)
        path = folder / PAGE
        files.atomic_write(path, _html(comparison, rows, panels))
    return path


def leaderboard(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per group, the best first; None where unknown.

    Accuracies and differences are 0..1; `difference` is to the best group.
    """
    rows = []
    for number, group in enumerate(comparison.groups):
        low, high = comparison.intervals[number]
        bounds = comparison.bounds(number, 0) or (None, None)
        best, worst = comparison.ranks(number)
        rows.append(
            {
                "best_rank": best,
                "worst_rank": worst,
                "name": group.name,
                "model": group.runs[0].record["model"],
                "regime": group.runs[0].record["regime"],
                "seeds": " ".join(map(str, group.seeds)),
                "images": comparison.images,
                "people": comparison.people,
                "accuracy": comparison.accuracy[number],
                "accuracy_low": None if np.isnan(low) else low,
                "accuracy_high": None if np.isnan(high) else high,
                "lowest_seed_accuracy": group.accuracies.min(),
                "highest_seed_accuracy": group.accuracies.max(),
                "difference": comparison.difference[number, 0],
                "difference_low": bounds[0],
                "difference_high": bounds[1],
                **_means(group),
            }
        )
    return rows


def _means(group: Group) -> dict[str, Any]:
    """Columns of the leaderboard that are means over a group's runs."""

    def mean(values: Iterable[float | None]) -> float | None:
        values = list(values)
        return None if None in values else float(np.mean(values))

    records = [run.record for run in group.runs]
    metrics = [run.metrics for run in group.runs]
    rates = [record.get("inference_images_per_second") for record in records]
    return {
        "auc": mean(one["auc"]["value"] for one in metrics),
        "log_loss": mean(one["log_loss"]["value"] for one in metrics),
        "parameters": records[0]["parameters"],
        "train_seconds": mean(one.get("train_seconds") for one in records),
        "train_images_per_second": mean(
            one.get("images_per_second") for one in records
        ),
        "inference_ms_per_image": mean(rate and 1000 / rate for rate in rates),
    }


def terminal(comparison: Comparison) -> str:
    """The leaderboard as a short table of text, the sentences below it."""
    table = pd.DataFrame(
        {
            "rank": ranks(row),
            "model": row["name"],
            "seeds": row["seeds"],
            "accuracy": percent(row["accuracy"]),
            "95 % interval": template.low_to_high(row, "accuracy"),
            "AUC": decimal(row["auc"]),
            "images/s": template.number(row["train_images_per_second"]),
            "ms/image": template.number(row["inference_ms_per_image"]),
        }
        for row in leaderboard(comparison)
    )
    lines = [table.to_string(index=False), *sentences(comparison), *notes(comparison)]
    return "\n".join(lines).replace("\u00a0", " ")


def ranks(row: dict[str, Any]) -> str:
    """The ranks that a group can have: "2" or "1–3"."""
    best, worst = row["best_rank"], row["worst_rank"]
    return str(best) if best == worst else f"{best}–{worst}"


def sentences(comparison: Comparison) -> list[str]:
    """The highest accuracy, and the groups that may be as good."""
    names = [group.name for group in comparison.groups]
    top = [0, *comparison.tied]
    apart = [
        names[number]
        for number in np.flatnonzero(~comparison.better[0])
        if number not in top
    ]
    return [
        f"Highest accuracy: {'; '.join(names[number] for number in top)}, "
        f"{percent(comparison.accuracy[0])} of {comparison.images:,} test images of "
        f"{comparison.people:,} people.",
        *([f"Cannot be told apart from it: {'; '.join(apart)}."] if apart else []),
    ]


def notes(comparison: Comparison) -> list[str]:
    """Limits of the comparison."""
    texts, groups = [], comparison.groups
    # All were tested on one dataset, see `comparison.load`.
    if groups[0].runs[0].record["data"]["split"] == "random":
        texts.append(
            "Images were split at random: the same person can be in training and test, "
            "which flatters every number here."
        )
    options = [
        f"{name} ({', '.join(values)})"
        for name, values in differing_options(groups).items()
    ]
    if options:
        texts.append(f"The groups also differ in {', '.join(options)}.")
    single = [group.name for group in groups if len(group.seeds) == 1]
    if single:
        texts.append(
            f"One seed only: {'; '.join(single)}. The randomness of training is not in "
            "these intervals."
        )
    if comparison.people < group_rates.MIN_PEOPLE:
        texts.append(
            f"Intervals that resample fewer than {group_rates.MIN_PEOPLE} people are "
            f"too narrow; these images show {comparison.people}."
        )
    return texts


def _html(
    comparison: Comparison,
    rows: list[dict[str, Any]],
    panels: dict[str, figures.Panel],
) -> str:
    runs = [run for group in comparison.groups for run in group.runs]
    unknown = "hardware that is not recorded"
    return template.render(
        PAGE,
        positive=runs[0].positive,
        sentences=sentences(comparison),
        notes=notes(comparison),
        comparison=comparison,
        rows=[row | {"ranks": ranks(row)} for row in rows],
        draws=DRAWS,
        devices=sorted({run.record.get("device_name", unknown) for run in runs}),
        charts={
            name: Markup(figures.svg(panel, name)) for name, panel in panels.items()
        },
        dataset=runs[0].record["data"]["dataset"],
    )


def _panels(
    comparison: Comparison, rows: list[dict[str, Any]]
) -> dict[str, figures.Panel]:
    """Forest plots and accuracy against costs; blue may be the best, gray is not."""
    groups = comparison.groups
    names = [group.name for group in groups]
    colors = [MUTED if worse else PRIMARY for worse in comparison.better[0]]
    panels = {
        "forest": forest(
            "Test accuracy",
            names,
            comparison.accuracy,
            comparison.intervals,
            colors,
            ticks=[one.accuracies if len(one.seeds) > 1 else () for one in groups],
        )
    }
    if len(groups) > 1:
        panels["differences"] = forest(
            "Difference to the best",
            names[1:],
            comparison.difference[1:, 0],
            [comparison.bounds(row, 0) for row in range(1, len(groups))],
            colors[1:],
            zero=True,
        )
    for name, (column, factor, label) in _COSTS.items():
        costs = [row[column] and factor * row[column] for row in rows]
        panels[name] = functools.partial(_draw_cost, comparison, costs, colors, label)
    return panels


def _draw_cost(
    comparison: Comparison,
    costs: Sequence[float | None],
    colors: Sequence[str],
    label: str,
    axes: Axes,
) -> None:
    """Accuracy with its interval against a cost; a line of text if none is known."""
    axes.set_title(f"Accuracy and {label}")
    known = [row for row, cost in enumerate(costs) if cost is not None]
    if not known:
        axes.text(0.5, 0.5, "not recorded", ha="center", color=MUTED)
        axes.set(xticks=[], yticks=[])
        return
    for row in known:
        axes.plot(
            costs[row],
            comparison.accuracy[row],
            color=colors[row],
            marker=_MARKERS[row % len(_MARKERS)],
            markersize=7,
            linestyle="",
            label=wrapped(comparison.groups[row].name),
        )
        axes.vlines(costs[row], *comparison.intervals[row], colors[row], alpha=0.6)
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_xlabel(label)
    for text in axes.legend(fontsize=8).get_texts():
        text.set_parse_math(False)
