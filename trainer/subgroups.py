"""Accuracy by subgroup of a finished run, with gaps to the rest and intervals.

`python -m trainer.subgroups --run_dir=RUN --slices=Young,Male*Eyeglasses` reads
RUN/predictions.csv, writes subgroups.json and subgroups.csv next to it and prints the
gaps that survive a correction for testing all of them.
"""

import dataclasses
from pathlib import Path

import pandas as pd
from absl import flags

from schemas import celeba
from support import command
from support.errors import ExitCode, UserError, usage_error
from support.text import percent, points
from trainer.evaluation import subgroups
from trainer.evaluation.groups import IMAGE_ID, parse_slice, read_group_csv
from trainer.reporting import subgroup_section
from trainer.runs import run_reader

_LINES = 10


@dataclasses.dataclass(frozen=True)
class SubgroupsConfig:
    """Flags of `python -m trainer.subgroups`."""

    run_dir: str | None = command.option(None, "Directory of a finished run.")
    predictions: str | None = command.option(
        None,
        "Other predictions than the run's own; the label stays the run's. The tables "
        "are written next to them.",
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
        table = pd.read_csv(path, dtype={IMAGE_ID: str}, keep_default_na=False)
    except (OSError, ValueError, OverflowError) as error:
        why = getattr(error, "strerror", None) or "it is not a complete CSV file"
        cause = f"{path} cannot be read: {why}."
        raise UserError(cause, remedy, ExitCode.INPUT_DATA) from error
    numbers = ("identity", "label", "probability", *celeba.ATTRIBUTES)
    for name in (IMAGE_ID, *numbers):
        if name not in table:
            cause = f"{path}:1 has no column {name}."
            raise UserError(cause, remedy, ExitCode.INPUT_DATA)
    if table.empty:
        raise UserError(f"{path} has no predictions.", remedy, ExitCode.INPUT_DATA)
    good = {"identity": lambda values: values % 1 == 0}
    good["probability"] = lambda values: values.between(0, 1)
    for name in numbers:
        values = pd.to_numeric(table[name], errors="coerce")
        wrong = ~good.get(name, lambda values: values.isin((0, 1)))(values)
        if wrong.any():
            row = int(wrong.argmax())
            cause = f"{path}:{row + 2} {name} is {str(table[name][row])!r}."
            raise UserError(cause, remedy, ExitCode.INPUT_DATA)
        table[name] = values
    return table


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(SubgroupsConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(SubgroupsConfig, values)
    run_dir = Path(config.run_dir)
    attribute, threshold, bootstrap = run_reader.read_for_groups(run_dir)
    source = Path(config.predictions or run_dir / "predictions.csv")
    predictions = read_predictions(source)
    groups = None
    if config.group_csv:
        groups = read_group_csv(Path(config.group_csv), predictions[IMAGE_ID])
    table = subgroups.write(
        source.parent,
        predictions,
        attribute,
        config.slices,
        groups,
        bootstrap["draws"],
        bootstrap["seed"],
        threshold,
    )
    _print(table)
    print(f"table: {source.parent / subgroups.CSV_NAME}")


def _print(table: pd.DataFrame) -> None:
    lines = subgroup_section.sentences(table) + subgroup_section.excluded(table)
    for gap in subgroups.surviving_gaps(table).head(_LINES).itertuples():
        lines.append(
            f"  {points(gap.gap):>6} points ({points(gap.gap_low)} to "
            f"{points(gap.gap_high)})  {gap.rate.replace('_', ' ')}, {gap.title}: "
            f"{percent(gap.value)} of {gap.n:,}"
        )
    print("\n".join([*lines, subgroup_section.NOTE]).replace("\u00a0", " "))


if __name__ == "__main__":
    command.run(main)
