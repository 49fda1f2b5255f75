"""Accuracy by subgroup: rates, gaps to the rest, intervals and tests as one table.

`subgroups.csv` has a row per group, all images first, and per rate of
`group_rates.RATES` (here `R`) the columns

  R, R_low, R_high        the rate, 0..1, and its 95 % interval (bootstrap over people)
  R_n, R_people           images in its denominator, and people in them
  R_small                 1 if these are too few to judge by
  R_gap, _gap_low, _high  the rate minus that of all images outside the group
  R_gap_p                 p-value of the gap, corrected for all gaps of the table
  R_gap_survives          1 if the gap differs from 0 after that correction

with `n`, `people` and `small` of the accuracy, and `equalized_odds_difference` of the
grouping; an undefined value is an empty field. `subgroups.json` has the same rows, the
group's title, and how they were computed.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from support import files
from support.documents import MOST_JSON_BYTES, read_text
from support.errors import input_error
from trainer.evaluation import bootstrap, group_rates, metrics
from trainer.evaluation.group_rates import MIN_IMAGES, MIN_PEOPLE, RATES
from trainer.evaluation.groups import ATTRIBUTE, Partition, partitions

JSON_NAME, CSV_NAME = "subgroups.json", "subgroups.csv"
OVERALL = "overall"

_SUFFIXES = {
    "": float,
    "_low": float,
    "_high": float,
    "_n": int,
    "_people": int,
    "_small": int,
    "_gap": float,
    "_gap_low": float,
    "_gap_high": float,
    "_gap_p": float,
    "_gap_survives": int,
}
_ODDS = "equalized_odds_difference"
#: Column -> type, in the order of subgroups.csv.
_CSV_COLUMNS = {
    **{"group": str, "n": int, "people": int, "small": int},
    **{rate + suffix: kind for rate in RATES for suffix, kind in _SUFFIXES.items()},
    **{"kind": str, "grouping": str},
    **{_ODDS + suffix: float for suffix in ("", "_low", "_high")},
}
_COLUMNS = _CSV_COLUMNS | {"title": str, "chosen": int, f"{_ODDS}_small": int}


def evaluate(
    predictions: pd.DataFrame,
    attribute: str,
    slices: Sequence[str] = (),
    groups: pd.DataFrame | None = None,
    draws: int = 1000,
    seed: int = 0,
    threshold: float = metrics.THRESHOLD,
) -> pd.DataFrame:
    """Computes every group's rates, gaps, intervals and tests.

    Args:
      predictions: see `metrics.evaluate`, and `groups.partitions` for the others.
      attribute: the label's.
      slices: attributes to show in any case, and crossings: `Male*Eyeglasses`.
      groups: categories by image id.
      draws, seed, threshold: see `metrics.evaluate`.

    Returns:
      One row per group, see the module, and in addition `title`, `chosen` (1 if asked
      for by name) and `equalized_odds_difference_small`; NaN where undefined.

    Raises:
      UserError: exit 2, a slice names an unknown attribute.
      ValueError: no rows, or an attribute's value is neither 0 nor 1.
    """
    if predictions.empty:
        raise ValueError("there are no predictions to evaluate")
    nobody = np.zeros(len(predictions), np.int64)
    parts = [Partition("", OVERALL, False, ("all",), ("all images",), nobody)]
    parts += partitions(predictions, attribute, slices, groups)
    label = predictions["label"].to_numpy(np.int64)
    cell = 2 * label + (predictions["probability"].to_numpy() >= threshold)
    person, _ = bootstrap.clusters(predictions["identity"].to_numpy(np.int64))
    measured = group_rates.measure(parts, cell, person, draws, seed)
    table = pd.concat(_descriptions(parts, measured), ignore_index=True)
    for number, rate in enumerate(RATES):
        columns = {rate + suffix: measured[suffix][:, number] for suffix in _SUFFIXES}
        table = table.assign(**columns)
    for name in ("n", "people", "small"):
        table[name] = table[f"accuracy_{name}"]
    return table[list(_COLUMNS)].astype(_COLUMNS)


def _descriptions(
    parts: Sequence[Partition], measured: dict[str, np.ndarray]
) -> Iterator[pd.DataFrame]:
    """Names and equalized odds of the groups of each partition."""
    end = 0
    for part in parts:
        start, end = end, end + len(part.names)
        odds = group_rates.equalized_odds(measured, slice(start, end))
        columns = {"group": part.names, "title": part.titles, "kind": part.kind}
        columns |= {"grouping": part.name, "chosen": part.chosen}
        names = [_ODDS + suffix for suffix in ("", "_low", "_high", "_small")]
        yield pd.DataFrame(columns | dict(zip(names, odds, strict=True)))


def write(folder: Path, table: pd.DataFrame, **settings: Any) -> None:
    """Writes subgroups.json and subgroups.csv of what `evaluate` returns.

    Args:
      folder: an existing folder.
      table: see `evaluate`.
      **settings: how it was computed, for subgroups.json.

    Raises:
      UserError: exit 4, the folder cannot be written.
    """
    with files.output_errors(folder):
        files.atomic_write_all(folder, documents(table, **settings))


def documents(table: pd.DataFrame, **settings: Any) -> dict[str, str]:
    """The two files that `write` writes: name -> text."""
    facts = summary(table)
    lowest = facts.pop("lowest")
    names = ("level", "min_people", "min_images", "tested")
    document = settings | {name: facts[name] for name in names}
    document |= {"worst": lowest and lowest["group"], "groups": facts["groups"]}
    return {
        JSON_NAME: json.dumps(document, indent=1, allow_nan=False) + "\n",
        CSV_NAME: table.to_csv(index=False, columns=list(_CSV_COLUMNS)),
    }


def read(folder: Path) -> pd.DataFrame | None:
    """Reads the table in subgroups.json, see `evaluate`; None if there is none.

    Raises:
      UserError: exit 3, it is damaged or something else.
    """
    path = folder / JSON_NAME
    if not path.is_file():
        return None
    try:
        document = json.loads(read_text(path, MOST_JSON_BYTES))
        table = pd.DataFrame(document["groups"])[list(_COLUMNS)].astype(_COLUMNS)
        numbers = table.select_dtypes("number")
        if table["kind"].iloc[0] != OVERALL or not np.isfinite(numbers.sum()).all():
            raise ValueError("no row of all images, or an infinite number")
        return table
    except (
        *(ValueError, KeyError, IndexError, TypeError, AttributeError),
        *(RecursionError, OverflowError, OSError),
    ) as error:
        raise input_error(
            f"{path} is not a complete table of subgroups.",
            f"`python -m trainer.subgroups --run_dir={folder}` makes it again.",
        ) from error


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts, None where undefined."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """What templates/subgroups.txt and subgroups.json say of all groups.

    Returns:
      The constants of the method; `groups`: see `records`; `lowest`: the one of lowest
      accuracy that is not small, or None; `small`: how many are; `tested` and
      `surviving`: numbers of gaps, those of an attribute's two mirrored groups once;
      `excluded`: external column -> images that it has no value of.
    """
    large = table[(table["kind"] != OVERALL) & (table["small"] == 0)]
    p_values = table.loc[~_mirrored(table), [f"{rate}_gap_p" for rate in RATES]]
    outside = table["n"][0] - table.groupby("grouping", sort=False)["n"].sum()
    return {
        "level": bootstrap.LEVEL,
        "min_people": MIN_PEOPLE,
        "min_images": MIN_IMAGES,
        "groups": records(table),
        "lowest": next(iter(records(large.nsmallest(1, "accuracy"))), None),
        "small": int(table["small"][1:].sum()),
        "tested": int(p_values.count().sum()),
        "surviving": len(surviving_gaps(table)),
        "excluded": outside[outside > 0].to_dict(),
    }


def surviving_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Gaps that survive the correction, the largest first.

    Of an attribute's two groups, whose gaps mirror each other, the worse one.

    Returns:
      Columns title, rate (of `RATES`), value, n, gap, gap_low, gap_high.
    """
    names = {"": "value", "_n": "n", "_gap": "gap", "_gap_low": "gap_low"}
    names |= {"_gap_high": "gap_high", "_gap_survives": "survives"}
    gaps = pd.concat(
        table[["title", "kind"]].assign(
            rate=rate, **{name: table[rate + suffix] for suffix, name in names.items()}
        )
        for rate in RATES
    )
    worse = (gaps["gap"] < 0) == (gaps["rate"] == "accuracy")
    gaps = gaps[(gaps["survives"] == 1) & (worse | (gaps["kind"] != ATTRIBUTE))]
    gaps = gaps.sort_values("gap", key=np.abs, ascending=False, kind="stable")
    return gaps.drop(columns=["kind", "survives"])


def clearest_gaps(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The rows with the clearest accuracy gaps, from the lowest gap to the highest.

    The chosen groups, small ones too, and those whose gap is large for the width of its
    interval: `count` in all, or half as many next to more chosen ones. Of an attribute
    only one side is taken, because the other's gap is the same with the other sign.
    """
    rows = table[~_mirrored(table) & table["accuracy_gap_low"].notna()]
    width = rows["accuracy_gap_high"] - rows["accuracy_gap_low"]
    clarity = rows["accuracy_gap"].abs() / width.clip(lower=1e-9)
    rows = rows.loc[clarity.sort_values(ascending=False, kind="stable").index]
    chosen = rows[rows["chosen"] == 1][:count]
    others = rows[(rows["chosen"] == 0) & (rows["small"] == 0)]
    others = others[: max(count - len(chosen), count // 2)]
    return pd.concat([chosen, others]).sort_values("accuracy_gap", kind="stable")


def _mirrored(table: pd.DataFrame) -> pd.Series:
    """Groups without an attribute: their gaps are those of the groups with it."""
    return (table["kind"] == ATTRIBUTE) & table["group"].str.endswith("=0")
