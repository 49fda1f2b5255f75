"""Accuracy by subgroup of a finished run, with gaps to the rest and intervals.

`python -m trainer.subgroups --run_dir=RUN --slices=Young,Male*Eyeglasses` reads
RUN/predictions.csv, writes subgroups.json and subgroups.csv next to it and prints the
gaps that survive a correction for testing all of them.
"""

import dataclasses
from pathlib import Path

import pandas as pd
from absl import flags

from support import command
from support.errors import ExitCode, UserError, usage_error
from trainer.evaluation import loading, subgroups
from trainer.evaluation.groups import IMAGE_ID, parse_slice, read_group_csv
from trainer.reporting.subgroup_section import NOTE, excluded, sentences
from trainer.runs.record import read_run, require

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


def read_predictions(path: Path, attribute: str) -> pd.DataFrame:
    """Reads predictions that carry attributes, `attribute` among them.

    Raises:
      UserError: exit 3, no such file, no CSV, a column missing, or a value out of
        range, with its line.
    """
    try:
        table = pd.read_csv(path, dtype={IMAGE_ID: str}, keep_default_na=False)
    except (OSError, ValueError, OverflowError) as error:
        why = getattr(error, "strerror", None) or "it is not a complete CSV file"
        raise _error(f"{path} cannot be read: {why}.") from error
    required = (IMAGE_ID, "identity", "label", "probability", attribute)
    missing = [name for name in required if name not in table]
    if missing:
        raise _error(f"{path}:1 has no column {missing[0]}.")
    if table.empty:
        raise _error(f"{path} has no predictions.")
    numbers = table.drop(columns=IMAGE_ID).apply(pd.to_numeric, errors="coerce")
    wrong = ~numbers.isin((0, 1))
    wrong["identity"] = numbers["identity"] % 1 != 0
    wrong["probability"] = ~numbers["probability"].between(0, 1)
    if wrong.any(axis=None):
        name = wrong.any().idxmax()
        row = wrong[name].idxmax()
        raise _error(f"{path}:{row + 2} {name} is {str(table[name][row])!r}.")
    return numbers.assign(**{IMAGE_ID: table[IMAGE_ID]})


def _error(cause: str) -> UserError:
    remedy = "Name the predictions.csv of a finished run, or evaluate the run again."
    return UserError(cause, remedy, ExitCode.INPUT_DATA)


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(SubgroupsConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(SubgroupsConfig, values)
    run_dir = Path(config.run_dir)
    run = read_run(run_dir)
    require(run_dir, run, ["attribute"])
    attribute, metrics = run["attribute"], loading.read_metrics(run_dir)
    settings = {"threshold": metrics["threshold"]}
    settings |= {key: metrics["bootstrap"][key] for key in ("draws", "seed")}
    source = Path(config.predictions or run_dir / "predictions.csv")
    predictions = read_predictions(source, attribute)
    groups = None
    if config.group_csv:
        groups = read_group_csv(Path(config.group_csv), predictions)
    table = subgroups.evaluate(
        predictions, attribute, config.slices, groups, **settings
    )
    subgroups.write(source.parent, table, attribute=attribute, **settings)
    for text in (*sentences(table), *excluded(table)):
        print(text.replace("\u00a0", " "))
    gaps = subgroups.surviving_gaps(table).head(_LINES)
    if len(gaps):
        print(gaps.to_string(index=False, float_format="{:.1%}".format))
    print(f"{NOTE}\ntable: {source.parent / subgroups.CSV_NAME}")


if __name__ == "__main__":
    command.run(main)
