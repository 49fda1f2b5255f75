"""For whom a model is right: rates of subgroups, their gaps to the rest, intervals.

`python -m trainer.subgroups --run_dir=RUN --slices=Young,Male*Eyeglasses` reads
RUN/predictions.csv, writes subgroups.json and subgroups.csv there and prints what is
most telling. The labels that make the groups were perceived by annotators and are
noisy, as the label itself is.
"""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from absl import flags

from schemas import celeba
from support import command
from support.documents import read_text
from support.errors import ExitCode, UserError, usage_error
from trainer.evaluation import group_rates, metrics, subgroup_table
from trainer.evaluation.group_rates import MIN_IMAGES, MIN_PEOPLE, RATES
from trainer.evaluation.groups import (
    ATTRIBUTE,
    IMAGE_ID,
    Partition,
    parse_slice,
    partitions,
    read_group_csv,
)
from trainer.evaluation.subgroup_table import Group, Grouping, Rate, Table, pair
from trainer.runs import run_reader

NOTE = (
    "The labels that make the groups were perceived by annotators and are noisy "
    "themselves: part of a gap can be theirs."
)
RATE_NAMES = {
    "accuracy": "accuracy",
    "false_positive_rate": "false-positive rate",
    "false_negative_rate": "false-negative rate",
}
_LINES = 10


def evaluate(
    predictions: pd.DataFrame,
    attribute: str,
    slices: Sequence[str] = (),
    groups: pd.DataFrame | None = None,
    draws: int = 1000,
    seed: int = 0,
    threshold: float = metrics.THRESHOLD,
) -> Table:
    """Computes every group's rates, gaps, intervals and tests.

    Args:
      predictions: columns `image_id`, `identity` (int, -1 = unknown: a cluster of its
        own), `label` (0 or 1), `probability` (of label 1, 0..1) and one column of 0
        and 1 per CelebA attribute, one row per example.
      attribute: the label's.
      slices: attributes to show in any case, and crossings: `Male*Eyeglasses`.
      groups: categories by image id, see `trainer.evaluation.groups.read_group_csv`.
      draws: bootstrap draws.
      seed: seed of the draws.
      threshold: lowest probability that counts as a predicted 1.

    Raises:
      UserError: exit 2, a slice names an unknown attribute.
      ValueError: no rows, or an attribute's value is neither 0 nor 1.
    """
    if predictions.empty:
        raise ValueError("there are no predictions to evaluate")
    parts = partitions(predictions, attribute, slices, groups)
    nobody = np.zeros(len(predictions), np.int64)
    parts = [Partition("", "", False, ("all",), ("all images",), nobody), *parts]
    label = predictions["label"].to_numpy(np.int64)
    cell = 2 * label + (predictions["probability"].to_numpy() >= threshold)
    person, _ = metrics.clusters(predictions["identity"].to_numpy(np.int64))
    measured = group_rates.measure(parts, cell, person, draws, seed)
    p_values = group_rates.adjusted_p_values(measured)
    found = [
        _grouping(*triple) for triple in zip(parts, measured, p_values, strict=True)
    ]
    large = [group for part in found[1:] for group in part.groups if not group.small]
    worst = min(large, key=lambda group: group.accuracy.value, default=None)
    return Table(
        attribute=attribute,
        threshold=threshold,
        level=metrics.LEVEL,
        draws=draws,
        seed=seed,
        min_people=MIN_PEOPLE,
        min_images=MIN_IMAGES,
        tested=sum(_tested(*pair) for pair in zip(parts, p_values, strict=True)),
        worst=worst.name if worst else None,
        overall=found[0].groups[0],
        groupings=tuple(found[1:]),
    )


def _grouping(
    part: Partition, measured: group_rates.Measured, p_values: np.ndarray
) -> Grouping:
    odds = group_rates.equalized_odds(measured.group)
    members = []
    for number, (name, title) in enumerate(zip(part.names, part.titles, strict=True)):
        rates = {
            name: _rate(measured, p_values, number, column)
            for column, name in enumerate(RATES)
        }
        whole = rates["accuracy"]
        members.append(Group(name, title, whole.n, whole.people, whole.small, **rates))
    return Grouping(
        name=part.name,
        kind=part.kind,
        chosen=part.chosen,
        missing=int(np.count_nonzero(part.codes < 0)),
        equalized_odds_difference=odds[0] if odds else None,
        interval=pair(metrics.interval(odds[1])) if odds else None,
        small=odds[2] if odds else False,
        groups=tuple(members),
    )


def _tested(part: Partition, p_values: np.ndarray) -> int:
    """Gaps that were tested, those of an attribute's two mirrored groups once."""
    once = p_values[1:] if part.kind == ATTRIBUTE else p_values
    return int(np.count_nonzero(~np.isnan(once)))


def _rate(
    measured: group_rates.Measured, p_values: np.ndarray, group: int, rate: int
) -> Rate:
    side, place = measured.group, (group, rate)
    value, gap, p = side.rates[place], measured.gaps[place], p_values[place]
    return Rate(
        value=_finite(value),
        interval=pair(side.interval(group, rate)) if np.isfinite(value) else None,
        n=int(side.sizes[place]),
        people=int(side.people[place]),
        small=bool(side.small[place]),
        gap=_finite(gap),
        gap_interval=(
            pair(measured.gap_interval(group, rate)) if np.isfinite(gap) else None
        ),
        p=_finite(p),
        survives=bool(p <= 1 - metrics.LEVEL),
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def sentences(table: Table) -> list[str]:
    """What the table says: the worst group, the gaps that are real, equalized odds."""
    return [text for text in (_worst(table), _gaps(table), _odds(table)) if text]


def telling(table: Table, count: int) -> list[Group]:
    """The groups with the clearest accuracy gaps, from the lowest to the highest.

    The chosen groups, small ones too, and those whose gap is large for the width of its
    interval: `count` in all, or half as many beside more chosen ones. Of an attribute
    only one side is taken, because the other's gap is the same with the other sign.
    """
    chosen, others = [], []
    for part in table.groupings:
        for group in part.groups[1:] if part.kind == ATTRIBUTE else part.groups:
            if group.accuracy.gap_interval:
                if part.chosen:
                    chosen.append(group)
                elif not group.small:
                    others.append(group)
    chosen = sorted(chosen, key=_clarity)[:count]
    others = sorted(others, key=_clarity)[: max(count - len(chosen), count // 2)]
    return sorted(chosen + others, key=lambda group: group.accuracy.gap)


def survivors(table: Table) -> list[tuple[Group, str]]:
    """Groups and names of rates whose gap survives the correction, largest first.

    Of an attribute's two groups, whose gaps mirror each other, the worse one.
    """
    found = []
    for part in table.groupings:
        for group in part.groups:
            for name in RATES:
                rate = getattr(group, name)
                worse = rate.gap is not None and (rate.gap < 0) == (name == "accuracy")
                if rate.survives and (worse or part.kind != ATTRIBUTE):
                    found.append((group, name))
    return sorted(found, key=lambda pair: -abs(getattr(*pair).gap))


def percent(value: float | None) -> str:
    """0.943 -> "94.3 %"; an undefined value is a dash."""
    return "–" if value is None else f"{100 * value:.1f} %"


def percents(bounds: tuple[float, float] | None) -> str:
    """(0.928, 0.956) -> "92.8–95.6 %"; none is a dash."""
    return "–" if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f} %"


def points(value: float | None) -> str:
    """-0.0253 -> "−2.5", percentage points; an undefined value is a dash."""
    if value is None:
        return "–"
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def _clarity(group: Group) -> float:
    """Sorts large gaps with narrow intervals first."""
    low, high = group.accuracy.gap_interval
    return -abs(group.accuracy.gap) / max(high - low, 1e-9)


def _worst(table: Table) -> str:
    group, overall = table.worst_group, table.overall.accuracy.value
    large = sum(not part.small for part in table.groups)
    if group is None:
        return "Every group is too small to judge by."
    return (
        f"Of {large} groups that are not small, the lowest accuracy is that of "
        f"{group.title}: {percent(group.accuracy.value)} "
        f"({percents(group.accuracy.interval)}), {group.n:,} images of "
        f"{group.people:,} people; all images: {percent(overall)}. "
        "The lowest of so many is low by chance, too."
    )


def _gaps(table: Table) -> str:
    found = survivors(table)
    if not table.tested:
        return ""
    chance = f"{100 * (1 - table.level):.0f} %"
    said = (
        f"{table.tested:,} gaps were tested. Each interval alone misses in {chance} of "
        "cases, so among so many some look real by chance; "
    )
    if not found:
        return said + "corrected for that, none differs from zero."
    return said + (
        f"corrected for that, {len(found)} still differ{'s' * (len(found) == 1)} from "
        f"zero (the chance that any of them is a false alarm is about {chance})."
    )


def _odds(table: Table) -> str:
    judged = [
        part
        for part in table.groupings
        if part.equalized_odds_difference is not None and not part.small
    ]
    if not judged:
        return ""
    part = max(judged, key=lambda part: part.equalized_odds_difference)
    low_high = percents(part.interval).removesuffix(" %")
    interval = f" ({low_high})" if part.interval else ""
    return (
        "Equalized-odds difference (the larger of the differences in false-positive "
        f"and false-negative rate): largest by {part.name.replace('_', ' ')}, "
        f"{100 * part.equalized_odds_difference:.1f} points{interval}. It is never "
        "below zero, so chance alone lifts it."
    )


@dataclasses.dataclass(frozen=True)
class SubgroupsConfig:
    """Flags of `python -m trainer.subgroups`."""

    run_dir: str | None = command.option(None, "Folder of a finished run.")
    predictions: str | None = command.option(
        None,
        "Other predictions than the run's own; the label stays the run's. The tables "
        "are written beside them.",
    )
    slices: tuple[str, ...] = command.option(
        (), "Attributes to show in any case and crossings: Young,Male*Eyeglasses."
    )
    group_csv: str | None = command.option(
        None, "CSV file of image_id and columns of categories, each a group."
    )

    def __post_init__(self):
        if not self.run_dir:
            raise usage_error("--run_dir is missing.", "Add --run_dir=runs/NAME.")
        for text in self.slices:
            parse_slice(text)


def read_predictions(path: Path) -> pd.DataFrame:
    """Reads predictions that carry attributes.

    Raises:
      UserError: exit 3, no such file, no CSV, a column missing, or a value out of
        range, with its line.
    """
    remedy = "Name the predictions.csv of a finished run, or evaluate the run again."
    try:
        text = io.StringIO(read_text(path))
        table = pd.read_csv(text, dtype={IMAGE_ID: str}, keep_default_na=False)
    except (OSError, ValueError, OverflowError) as error:
        why = getattr(error, "strerror", None) or "it is not a complete CSV file"
        raise _input_error(f"{path} cannot be read: {why}.", remedy) from error
    for name in (IMAGE_ID, "identity", "label", "probability", *celeba.ATTRIBUTES):
        if name not in table:
            raise _input_error(f"{path}:1 has no column {name}.", remedy)
    if table.empty:
        raise _input_error(f"{path} has no predictions.", remedy)
    for name in ("identity", "label", "probability", *celeba.ATTRIBUTES):
        values = pd.to_numeric(table[name], errors="coerce")
        if name == "identity":
            good = values % 1 == 0
        elif name == "probability":
            good = values.between(0, 1)
        else:
            good = values.isin((0, 1))
        if not good.all():
            row = int(np.argmin(good.to_numpy()))
            raise _input_error(
                f"{path}:{row + 2} {name} is {str(table[name][row])!r}.", remedy
            )
        table[name] = values
    return table


def _input_error(cause: str, remedy: str) -> UserError:
    return UserError(cause, remedy, ExitCode.INPUT_DATA)


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(SubgroupsConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(SubgroupsConfig, values)
    run_dir = Path(config.run_dir)
    attribute, threshold, bootstrap = run_reader.read_for_groups(run_dir)
    source = Path(config.predictions or run_dir / "predictions.csv")
    predictions = read_predictions(source)
    outside = None
    if config.group_csv:
        outside = read_group_csv(Path(config.group_csv), predictions[IMAGE_ID])
    table = evaluate(
        predictions,
        attribute,
        config.slices,
        outside,
        bootstrap["draws"],
        bootstrap["seed"],
        threshold,
    )
    # Beside what they are of: the run's own stay those of its test.
    subgroup_table.write(table, source.parent)
    _print(table, source.parent)


def _print(table: Table, folder: Path) -> None:
    small = sum(group.small for group in table.groups)
    print(
        f"{len(table.groups)} groups of {table.overall.n:,} images, perceived "
        f"{table.attribute}; {small} are small (fewer than {table.min_people} people "
        f"or {table.min_images} images)"
    )
    for part in table.groupings:
        if part.missing:
            print(
                f"{part.name}: {part.missing:,} images have no value and are left out"
            )
    print("\n".join(sentences(table)))
    for group, name in survivors(table)[:_LINES]:
        rate = getattr(group, name)
        low, high = (points(bound) for bound in rate.gap_interval)
        print(
            f"  {points(rate.gap):>6} points ({low} to {high})  "
            f"{RATE_NAMES[name]}, {group.title}: {percent(rate.value)} of {rate.n:,}"
        )
    print(f"{NOTE}\ntable: {folder / subgroup_table.CSV_NAME}")


if __name__ == "__main__":
    command.run(main)
