"""The table of subgroups, as Python objects, subgroups.json and subgroups.csv."""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support import files
from support.documents import MOST_JSON_BYTES, is_count, is_number, read_text
from support.errors import ExitCode, UserError
from trainer.evaluation.group_rates import RATES

JSON_NAME, CSV_NAME = "subgroups.json", "subgroups.csv"

Interval = tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Rate:
    """One rate of one group; None is undefined or, of an interval, unknown.

    Attributes:
      value: 0..1.
      interval: 95 %, by the bootstrap over people.
      n: images that it is a share of.
      people: people in them.
      small: whether these are too few to judge by.
      gap: the value minus that of all images outside the group.
      gap_interval: 95 %, from the same draws.
      p: of no gap, corrected for all gaps of the table; None if not tested.
      survives: whether the gap differs from none after that correction.
    """

    value: float | None
    interval: Interval
    n: int
    people: int
    small: bool
    gap: float | None
    gap_interval: Interval
    p: float | None
    survives: bool


@dataclasses.dataclass(frozen=True)
class Group:
    """A group: its name for programs, its title for people, size and rates."""

    name: str
    title: str
    n: int
    people: int
    small: bool
    accuracy: Rate
    false_positive_rate: Rate
    false_negative_rate: Rate


@dataclasses.dataclass(frozen=True)
class Grouping:
    """Groups of one attribute, one crossing, or one column of an outside table.

    Attributes:
      name: of the attribute, crossing or column.
      kind: "attribute", "crossing" or "table".
      chosen: whether somebody asked for it by name.
      missing: images that the outside table says nothing of.
      equalized_odds_difference: see `group_rates.equalized_odds`; None if undefined.
      interval: of that difference, 95 %.
      small: whether a group has too few people or images for it.
      groups: all of them, the empty ones included.
    """

    name: str
    kind: str
    chosen: bool
    missing: int
    equalized_odds_difference: float | None
    interval: Interval
    small: bool
    groups: tuple[Group, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """The subgroups of one table of predictions.

    Attributes:
      attribute: the label's.
      threshold: lowest probability that counts as a predicted 1.
      level: of the intervals and of the correction.
      draws: of the bootstrap.
      seed: of the draws.
      min_people: groups with fewer are small.
      min_images: groups with fewer are small.
      tested: gaps that were tested, those of an attribute's two groups once.
      worst: name of the group of the lowest accuracy that is not small.
      overall: all images.
      groupings: see `Grouping`.
    """

    attribute: str
    threshold: float
    level: float
    draws: int
    seed: int
    min_people: int
    min_images: int
    tested: int
    worst: str | None
    overall: Group
    groupings: tuple[Grouping, ...]

    @property
    def groups(self) -> list[Group]:
        """The groups of all groupings."""
        return [group for grouping in self.groupings for group in grouping.groups]

    @property
    def worst_group(self) -> Group | None:
        return next((group for group in self.groups if group.name == self.worst), None)

    def to_json(self) -> dict[str, Any]:
        """As nested dicts and lists."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Table":
        """The inverse of `to_json`; KeyError or TypeError if it is something else."""
        parts = [
            dict(part) | {"groups": tuple(map(_group_from_json, part["groups"]))}
            for part in document["groupings"]
        ]
        return cls(
            **dict(document)
            | {
                "overall": _group_from_json(document["overall"]),
                "groupings": tuple(
                    Grouping(**part | {"interval": pair(part["interval"])})
                    for part in parts
                ),
            }
        )


def write(table: Table, run_dir: Path) -> None:
    """Writes subgroups.json and subgroups.csv.

    Raises:
      UserError: exit 4, the folder cannot be written.
    """
    with files.output_errors(run_dir):
        text = json.dumps(table.to_json(), indent=1, allow_nan=False)
        files.atomic_write(run_dir / JSON_NAME, text + "\n")
        files.atomic_write(run_dir / CSV_NAME, _csv(table))


def read(run_dir: Path) -> Table | None:
    """Reads a run folder's subgroups.json; None if there is none.

    Raises:
      UserError: exit 3, it is damaged or something else.
    """
    path = run_dir / JSON_NAME
    if not path.is_file():
        return None
    try:
        table = Table.from_json(json.loads(read_text(path, MOST_JSON_BYTES)))
        _check(table)
        return table
    except (
        *(ValueError, KeyError, IndexError, TypeError, AttributeError),
        *(RecursionError, OSError),
    ) as error:
        raise UserError(
            f"{path} is not a complete table of subgroups.",
            f"`python -m trainer.subgroups --run_dir={run_dir}` makes it again.",
            ExitCode.INPUT_DATA,
        ) from error


def _check(table: Table) -> None:
    """Raises TypeError for a value that is not of the type it should have."""
    for group in (table.overall, *table.groups):
        if not (isinstance(group.title, str) and isinstance(group.name, str)):
            raise TypeError("a group's name is no text")
        for counted in (group, *(getattr(group, name) for name in RATES)):
            if not (is_count(counted.n) and is_count(counted.people)):
                raise TypeError("a number of images or people is no count")
        for name in RATES:
            rate = getattr(group, name)
            for value in (rate.value, rate.gap, rate.p):
                if value is not None and not is_number(value):
                    raise TypeError("a rate is no number")
    for part in table.groupings:
        odds = part.equalized_odds_difference
        if not (isinstance(part.name, str) and (odds is None or is_number(odds))):
            raise TypeError("a grouping's name or difference is of another type")


def _csv(table: Table) -> str:
    """One row per group, `overall` first; an undefined value is an empty field."""
    rows = [_row(table.overall, {"kind": "overall"})]
    for part in table.groupings:
        low, high = part.interval or (None, None)
        about = {"kind": part.kind, "grouping": part.name}
        about |= {"equalized_odds_difference": part.equalized_odds_difference}
        about |= {
            "equalized_odds_difference_low": low,
            "equalized_odds_difference_high": high,
        }
        rows += [_row(group, about) for group in part.groups]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[-1]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(group: Group, about: Mapping[str, Any]) -> dict[str, Any]:
    row = {"group": group.name, "n": group.n, "people": group.people}
    row["small"] = int(group.small)
    for name in RATES:
        rate = getattr(group, name)
        low, high = rate.interval or (None, None)
        gap_low, gap_high = rate.gap_interval or (None, None)
        values = {"": rate.value, "_low": low, "_high": high, "_n": rate.n}
        values |= {"_people": rate.people, "_small": int(rate.small)}
        values |= {"_gap": rate.gap, "_gap_low": gap_low, "_gap_high": gap_high}
        values |= {"_gap_p": rate.p, "_gap_survives": int(rate.survives)}
        row |= {name + suffix: value for suffix, value in values.items()}
    return row | dict(about)


def _group_from_json(document: Mapping[str, Any]) -> Group:
    rates = {}
    for name in RATES:
        rate = document[name]
        pairs = {key: pair(rate[key]) for key in ("interval", "gap_interval")}
        rates[name] = Rate(**dict(rate) | pairs)
    return Group(**dict(document) | rates)


def pair(bounds: Sequence[float] | None) -> Interval:
    """[low, high] -> (low, high)."""
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))
