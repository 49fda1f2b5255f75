"""A comparison in words and tables: for the terminal, as CSV and as one HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from schemas import celeba
from support import figures, files, page
from support.text import decimal, duration, interval, percent
from trainer.evaluation import group_rates
from trainer.evaluation.comparison import DRAWS, Comparison, differing_options
from trainer.reporting import comparison_plots

PAGE, TABLE = "comparison.html", "leaderboard.csv"

_APART = "cannot be told apart"
_WORDS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
)


def write(comparison: Comparison, folder: Path) -> Path:
    """Writes `comparison.html`, `leaderboard.csv` and the charts as PNG files.

    Returns:
      The path of the HTML file.

    Raises:
      UserError: exit 4, the folder cannot be written.
    """
    panels = _panels(comparison)
    with files.output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        table = leaderboard(comparison).to_csv(index=False)
        files.atomic_write(folder / TABLE, table)
        for name, panel in panels.items():
            picture = figures.png([panel])
            files.atomic_write(folder / f"comparison-{name}.png", picture)
        path = folder / PAGE
        files.atomic_write(path, _html(comparison, panels))
    return path


def leaderboard(comparison: Comparison) -> pd.DataFrame:
    """One row per group, the best first; an unknown value is missing.

    Accuracies and differences are 0..1; `difference` is to the best group.
    """
    rows = []
    for number, group in enumerate(comparison.groups):
        low, high = comparison.intervals[number] or (None, None)
        bounds = comparison.bounds(number, 0) or (None, None)
        first, last = comparison.ranks(number)
        each = group.accuracies
        rows.append(
            {
                "best_rank": first,
                "worst_rank": last,
                "name": group.name,
                "model": group.candidates[0].run.record["model"],
                "regime": group.regime,
                "seeds": " ".join(map(str, group.seeds)),
                "images": comparison.images,
                "people": comparison.people,
                "accuracy": comparison.accuracy[number],
                "accuracy_low": low,
                "accuracy_high": high,
                "lowest_seed_accuracy": each.min(),
                "highest_seed_accuracy": each.max(),
                "difference": comparison.difference[number, 0],
                "difference_low": bounds[0],
                "difference_high": bounds[1],
                "auc": group.mean_metric("auc"),
                "log_loss": group.mean_metric("log_loss"),
                "parameters": group.candidates[0].run.record["parameters"],
                "train_seconds": group.mean("train_seconds"),
                "train_images_per_second": group.mean("images_per_second"),
                "inference_ms_per_image": group.inference_milliseconds,
            }
        )
    return pd.DataFrame(rows)


def terminal(comparison: Comparison) -> str:
    """The leaderboard as a short table of text, the sentences below it."""
    heads = ("rank", "model", "seeds", "accuracy", "95 % interval", "AUC")
    heads += ("images/s", "ms/image")
    cells = [
        (
            row["rank"],
            row["name"],
            " ".join(map(str, row["seeds"])),
            percent(row["accuracy"]),
            interval(row["interval"], percent),
            decimal(row["auc"]),
            row["train_rate"],
            row["inference"],
        )
        for row in _rows(comparison)
    ]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number in (1, 2) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (heads, *cells)
    ]
    lines += ["", *sentences(comparison), *notes(comparison)]
    return "\n".join(lines).replace("\u00a0", " ")


def sentences(comparison: Comparison) -> list[str]:
    """What can and what cannot be told apart, in words."""
    names = [group.name for group in comparison.groups]
    best = f"{names[0]} calls {percent(comparison.accuracy[0])} of "
    best += f"{comparison.images:,} test images of {comparison.people:,} people right"
    if len(names) == 1:
        return [f"{best}; there is nothing to compare it with."]
    worse = np.flatnonzero(comparison.better[0])
    same = [number for number in range(1, len(names)) if number not in worse]
    tied = _listed([names[number] for number in comparison.tied])
    if not tied:
        found = [f"{best}, more than any other."]
    elif len(comparison.tied) == len(names) - 1:
        found = [f"{best}, as many as {tied}."]
    else:
        found = [f"{best}, as many as {tied}, and more than any other."]
    if same:
        which = _listed([names[number] for number in same])
        found.append(f"{which} {_APART} from it.")
    if len(worse) == 1:
        gap = _points_between(comparison, worse[0])
        found.append(f"{names[worse[0]]} is worse, by {gap} percentage points.")
    elif len(worse):
        gaps = [_points_between(comparison, number) for number in worse]
        which = [
            f"{names[number]} ({gap})" for number, gap in zip(worse, gaps, strict=True)
        ]
        found.append(f"Worse, by so many percentage points: {_listed(which)}.")
    return found + _among_the_others(comparison, names)


def notes(comparison: Comparison) -> list[str]:
    """What limits the comparison."""
    found = []
    groups = comparison.groups
    # All were tested on one dataset, see `trainer.evaluation.comparison.load`.
    if groups[0].candidates[0].run.record["data"]["split"] == "random":
        found.append(
            "Images were split at random: the same person can be in training and test, "
            "which flatters every number here."
        )
    if len(groups) > 1:
        options = differing_options(groups)
        if "device_name" in options:
            found.append(
                "The runs were made on different machines: times, and rates "
                "do not compare."
            )
        others = [
            f"{name} ({', '.join(dict.fromkeys(values))})"
            for name, values in options.items()
            if name != "device_name"
        ]
        if others:
            found.append(
                f"The groups also differ in {_listed(others)}: what differs is the "
                "whole recipe, not only the architecture."
            )
    single = [group.name for group in groups if len(group.seeds) == 1]
    if single:
        which = "every group" if len(single) == len(groups) else _listed(single)
        found.append(
            f"One seed only: {which}. Another seed gives another model, and "
            "that luck is not in these intervals."
        )
    if comparison.people == 1:
        found.append("There is only one person to resample: no intervals.")
    elif comparison.people < group_rates.MIN_PEOPLE:
        found.append(
            f"Only {_word(comparison.people)} people are in these images. So few say "
            f"little: intervals that resample fewer than {group_rates.MIN_PEOPLE} are "
            "too narrow."
        )
    return found


def pairs(comparison: Comparison) -> list[dict[str, str]]:
    """Every pair in words, the better first; those with the best group come first."""
    rows = []
    names = [group.name for group in comparison.groups]
    for first, second in zip(*np.triu_indices(len(names), 1), strict=True):
        bounds = comparison.bounds(first, second)
        real = comparison.better[first, second]
        rows.append(
            {
                "first": names[first],
                "second": names[second],
                "difference": _signed(comparison.difference[first, second]),
                "bounds": _points(bounds) if bounds else "–",
                "verdict": "better" if real else _APART,
            }
        )
    return rows


def _among_the_others(comparison: Comparison, names: Sequence[str]) -> list[str]:
    """A sentence on the pairs without the best group."""
    count = len(names) - 1
    if count < 2:
        return []
    better = comparison.better[1:, 1:]
    total = count * (count - 1) // 2
    if not better.any():
        which = "The other two" if count == 2 else f"Of the other {_word(count)} no two"
        verb = _APART if count == 2 else _APART.replace("cannot", "can")
        return [f"{which} {verb}{' from each other' if count > 2 else ''}."]
    if count == 2:
        return [f"{names[1]} is better than {names[2]}."]
    told = int(better.sum())
    return [
        f"Among the other {_word(count)}, {_word(told)} of {_word(total)} "
        "pairs can be told apart."
    ]


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The leaderboard as it is shown."""
    rows = []
    for number, group in enumerate(comparison.groups):
        seconds, rate = group.mean("train_seconds"), group.mean("images_per_second")
        inference = group.inference_milliseconds
        low, high = comparison.ranks(number)
        each = group.accuracies
        seeds = ", ".join(map(str, group.seeds))
        rows.append(
            {
                "rank": str(low) if low == high else f"{low}–{high}",
                "name": group.name,
                "regime": group.regime,
                "seeds": group.seeds,
                "seeds_text": f"seed{'s' if len(group.seeds) > 1 else ''} {seeds}",
                "accuracy": comparison.accuracy[number],
                "interval": comparison.intervals[number],
                "seed_range": interval((each.min(), each.max()), percent)
                if len(each) > 1
                else "–",
                "auc": group.mean_metric("auc"),
                "log_loss": group.mean_metric("log_loss"),
                "parameters": group.candidates[0].run.record["parameters"],
                "training_time": "–" if seconds is None else duration(seconds),
                "train_rate": "–" if rate is None else f"{rate:,.0f}",
                "inference": "–" if inference is None else f"{inference:.3g}",
            }
        )
    return rows


def _panels(comparison: Comparison) -> dict[str, figures.Panel]:
    groups = comparison.groups
    seconds = [group.mean("train_seconds") for group in groups]
    costs = {
        "train-rate": (
            [group.mean("images_per_second") for group in groups],
            "training images/s",
        ),
        "parameters": (
            [group.candidates[0].run.record["parameters"] / 1e6 for group in groups],
            "million parameters",
        ),
        "train-time": (
            [None if value is None else value / 60 for value in seconds],
            "training minutes",
        ),
        "inference": (
            [group.inference_milliseconds for group in groups],
            "inference ms per image",
        ),
    }
    forests = {"forest": comparison_plots.forest(comparison)}
    if len(groups) > 1:
        forests["differences"] = comparison_plots.differences(comparison)
    return forests | {
        key: comparison_plots.against(comparison, values, name)
        for key, (values, name) in costs.items()
    }


def _html(comparison: Comparison, panels: dict[str, figures.Panel]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "decimal": decimal}
    groups = comparison.groups
    positive = groups[0].candidates[0].run.positive
    runs = sum(len(group.candidates) for group in groups)
    title = f"{_word(len(groups))} model{'s' if len(groups) > 1 else ''}, "
    title += f"{runs} run{'s' if runs > 1 else ''}"
    body = environment.get_template(PAGE).render(
        title=f"{title[0].upper()}{title[1:]}",
        positive=positive,
        sentences=sentences(comparison),
        notes=notes(comparison),
        images=comparison.images,
        people=comparison.people,
        rows=_rows(comparison),
        pairs=pairs(comparison),
        interval=interval,
        percent=percent,
        draws=DRAWS,
        devices=sorted({_device(run) for group in groups for run in group.candidates}),
        charts={
            name: Markup(figures.svg(panel, name)) for name, panel in panels.items()
        },
        runs=[
            {
                "folder": candidate.folder,
                "group": group.name,
                "seed": candidate.seed,
                "accuracy": candidate.hits.mean(),
                "best_epoch": candidate.run.record["best_epoch"],
            }
            for group in groups
            for candidate in group.candidates
        ],
        data_terms=celeba.DATA_TERMS,
    )
    return page.render(f"Comparison: {positive}", body)


def _device(candidate: Any) -> str:
    return candidate.run.record.get("device_name", "hardware that is not recorded")


def _points_between(comparison: Comparison, worse: int) -> str:
    """By how much the best group is better, for example "1.2 to 4.0"."""
    low, high = comparison.bounds(0, worse)
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _points(bounds: tuple[float, float]) -> str:
    low, high = bounds
    return f"{_signed(low)} to {_signed(high)}"


def _signed(value: float) -> str:
    """0.021 -> "+2.1", with a minus that is as wide as the plus."""
    return f"{100 * value:+.1f}".replace("-", "−")


def _listed(words: Sequence[str]) -> str:
    """Joins with commas and "and"; semicolons where there are commas within."""
    comma = "; " if any(", " in word for word in words) else ", "
    if len(words) < 2:
        return "".join(words)
    return f"{comma.join(words[:-1])} and {words[-1]}"


def _word(count: int) -> str:
    return _WORDS[count] if count < len(_WORDS) else f"{count:,}"
