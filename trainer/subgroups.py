"""Accuracy by subgroup of a finished run, with gaps to the rest and intervals.

`python -m trainer.subgroups --run_dir=RUN --slices=Young,Male*Eyeglasses` reads
RUN/predictions.csv, writes subgroups.json and subgroups.csv next to it and prints the
gaps that survive a correction for testing all of them.
"""

import dataclasses
from pathlib import Path

from support import command
from support.errors import usage_error
from support.files import lock_existing
from trainer.evaluation import loading, subgroups
from trainer.evaluation.groups import parse_slice, read_group_csv
from trainer.reporting import template
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


def main(argv: list[str]) -> None:
    config = command.parse_config(SubgroupsConfig, argv)
    run_dir = Path(config.run_dir)
    run = read_run(run_dir)
    require(run_dir, run, ["attribute"])
    source = Path(config.predictions or run_dir / "predictions.csv")
    with lock_existing(source.parent):
        _write(config, run["attribute"], source)


def _write(config: SubgroupsConfig, attribute: str, source: Path) -> None:
    metrics = loading.read_metrics(Path(config.run_dir))
    settings = {"threshold": metrics["threshold"]}
    settings |= {key: metrics["bootstrap"][key] for key in ("draws", "seed")}
    predictions = loading.read_csv(source.parent, source.name, attribute)
    groups = None
    if config.group_csv:
        groups = read_group_csv(Path(config.group_csv), predictions)
    table = subgroups.evaluate(
        predictions, attribute, config.slices, groups, **settings
    )
    subgroups.write(source.parent, table, attribute=attribute, **settings)
    print(
        *template.lines("subgroups.txt", subgroups=subgroups.summary(table)), sep="\n"
    )
    gaps = subgroups.surviving_gaps(table).head(_LINES)
    if len(gaps):
        print(gaps.to_string(index=False, float_format="{:.1%}".format))
    print(f"table: {source.parent / subgroups.CSV_NAME}")


if __name__ == "__main__":
    command.run(main)
