"""A comparison as a table in the terminal, as CSV, and as an HTML page."""

import functools
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from support import figures, files
from support.figures import MUTED, PRIMARY
from support.text import decimal, interval, percent
from trainer.evaluation import group_rates, subgroups
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
    table = leaderboard(comparison)
    panels = _panels(comparison, table)
    with files.output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        files.atomic_write(folder / TABLE, table.to_csv(index=False))
        for name, panel in panels.items():
            png = figures.png([panel])
            files.atomic_write(folder / f"comparison-{name}.png", png)
        path = folder / PAGE
        files.atomic_write(path, _html(comparison, table, panels))
    return path


def leaderboard(comparison: Comparison) -> pd.DataFrame:
    """One row per group, the best first; NaN where unknown.

    Accuracies and differences are 0..1; `difference` is to the best group.
    """
    groups = comparison.groups
    firsts = [group.runs[0].record for group in groups]
    seeds = [group.accuracies for group in groups]
    columns = {
        "best_rank": comparison.ranks[:, 0],
        "worst_rank": comparison.ranks[:, 1],
        "name": [group.name for group in groups],
        "model": [record["model"] for record in firsts],
        "regime": [record["regime"] for record in firsts],
        "seeds": [" ".join(map(str, group.seeds)) for group in groups],
        "images": comparison.images,
        "people": comparison.people,
        "accuracy": comparison.accuracy,
        "accuracy_low": comparison.intervals[:, 0],
        "accuracy_high": comparison.intervals[:, 1],
        "lowest_seed_accuracy": [rates.min() for rates in seeds],
        "highest_seed_accuracy": [rates.max() for rates in seeds],
        "difference": comparison.difference[:, 0],
        "difference_low": comparison.bounds[:, 0, 0],
        "difference_high": comparison.bounds[:, 0, 1],
    }
    means = pd.DataFrame(map(_means, groups)).astype({"parameters": int})
    return pd.DataFrame(columns).join(means)


def _means(group: Group) -> pd.Series:
    """Columns of the leaderboard that are means over a group's runs."""
    runs = pd.DataFrame(
        {
            "auc": run.metrics["auc"]["value"],
            "log_loss": run.metrics["log_loss"]["value"],
            "parameters": run.record["parameters"],
            "train_seconds": run.record.get("train_seconds"),
            "train_images_per_second": run.record.get("images_per_second"),
            "inference": run.record.get("inference_images_per_second"),
        }
        for run in group.runs
    ).astype(float)
    runs["inference_ms_per_image"] = 1000 / runs.pop("inference")
    return runs.mean(skipna=False)


def terminal(comparison: Comparison) -> str:
    """The leaderboard as a short table of text, the sentences below it."""
    table = pd.DataFrame(
        {
            "rank": row["ranks"],
            "model": row["name"],
            "seeds": row["seeds"],
            "accuracy": percent(row["accuracy"]),
            "95 % interval": interval(template.bounds(row, "accuracy"), percent),
            "AUC": decimal(row["auc"]),
            "images/s": template.number(row["train_images_per_second"]),
            "ms/image": template.number(row["inference_ms_per_image"]),
        }
        for row in _rows(leaderboard(comparison))
    )
    lines = [table.to_string(index=False).replace("\u00a0", " ")]
    return "\n".join(lines + sentences(comparison))


def sentences(comparison: Comparison) -> list[str]:
    """The result and its limits."""
    names = ("comparison.txt", "limits.txt")
    values = _values(comparison)
    return [line for name in names for line in template.lines(name, **values)]


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The leaderboard's rows as dicts, with the possible ranks: "2" or "1–3"."""
    rows = subgroups.records(table)
    for row in rows:
        ranks = dict.fromkeys((row["best_rank"], row["worst_rank"]))
        row["ranks"] = "–".join(map(str, ranks))
    return rows


def _values(comparison: Comparison) -> dict[str, Any]:
    """What the sentences need."""
    groups = comparison.groups
    return {
        "comparison": comparison,
        # All were tested on one dataset, see `comparison.load`.
        "data": groups[0].runs[0].record["data"],
        "differing": differing_options(groups),
        "single": [group.name for group in groups if len(group.seeds) == 1],
        "min_people": group_rates.MIN_PEOPLE,
        "splits": template.SPLITS,
    }


def _html(
    comparison: Comparison, table: pd.DataFrame, panels: dict[str, figures.Panel]
) -> str:
    runs = [run for group in comparison.groups for run in group.runs]
    unknown = "hardware that is not recorded"
    return template.html(
        PAGE,
        positive=runs[0].positive,
        rows=_rows(table),
        draws=DRAWS,
        devices=sorted({run.record.get("device_name", unknown) for run in runs}),
        charts=template.charts(panels),
        **_values(comparison),
    )


def _panels(comparison: Comparison, table: pd.DataFrame) -> dict[str, figures.Panel]:
    """Forest plots and accuracy against costs; blue may be the best, gray is not."""
    groups = comparison.groups
    names = [group.name for group in groups]
    colors = [MUTED if worse else PRIMARY for worse in comparison.better[0]]
    ticks = [one.accuracies if len(one.seeds) > 1 else () for one in groups]
    measured = comparison.accuracy, comparison.intervals, colors
    panels = {"forest": forest("Test accuracy", names, *measured, ticks=ticks)}
    if len(groups) > 1:
        others = comparison.difference[1:, 0], comparison.bounds[1:, 0], colors[1:]
        title = "Difference to the best"
        panels["differences"] = forest(title, names[1:], *others, zero=True)
    for name, (column, factor, label) in _COSTS.items():
        costs = factor * table[column]
        panels[name] = functools.partial(_draw_cost, comparison, costs, colors, label)
    return panels


def _draw_cost(
    comparison: Comparison, costs: pd.Series, colors: list[str], label: str, axes: Axes
) -> None:
    """Accuracy with its interval against a cost; a line of text if none is known."""
    axes.set(title=f"Accuracy and {label}", xlabel=label)
    if costs.isna().all():
        axes.text(0.5, 0.5, "not recorded", ha="center", color=MUTED)
        axes.set(xticks=[], yticks=[], xlabel="")
        return
    for row, cost in costs.dropna().items():
        marker, color = _MARKERS[row % len(_MARKERS)], colors[row]
        name = wrapped(comparison.groups[row].name)
        point = cost, comparison.accuracy[row]
        axes.plot(*point, marker, color=color, markersize=7, label=name)
        axes.vlines(cost, *comparison.intervals[row], color, alpha=0.6)
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    for text in axes.legend(fontsize=8).get_texts():
        text.set_parse_math(False)
