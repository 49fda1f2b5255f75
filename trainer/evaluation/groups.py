"""Which image belongs to which group: attributes, crossed attributes, outside tables.

A slice is written `Young` or, crossed, `Male*Eyeglasses`: every combination of the
values of both is a group. An outside table, say of skin tones, is a CSV file with a
column `image_id` and columns of categories; each category is a group.
"""

import csv
import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from schemas import celeba
from support.errors import ExitCode, UserError, did_you_mean, usage_error

ATTRIBUTE, CROSSING, TABLE = "attribute", "crossing", "table"
IMAGE_ID = "image_id"

_CROSS = "*"
#: Four attributes make 16 groups, most of them too small to say anything of.
_MOST_CROSSED = 4
#: More than these are numbers or names rather than categories.
_MOST_CATEGORIES = 50
_NO_GROUP = -1


@dataclasses.dataclass(frozen=True)
class Partition:
    """Images divided into groups that do not overlap.

    Attributes:
      name: of the attribute, the crossing or the outside table's column.
      kind: ATTRIBUTE, CROSSING or TABLE.
      chosen: whether somebody asked for it by name.
      names: of the groups, for programs: "Male=1*Young=0".
      titles: of the groups, for people: "Male × not Young".
      codes: (n,) int64, the number of each image's group, -1 = in none.
    """

    name: str
    kind: str
    chosen: bool
    names: tuple[str, ...]
    titles: tuple[str, ...]
    codes: np.ndarray


def attributes_of(predictions: pd.DataFrame) -> list[str]:
    """The CelebA attributes that a table of predictions has columns of."""
    return [name for name in celeba.ATTRIBUTES if name in predictions]


def parse_slice(
    text: str, candidates: Sequence[str] = celeba.ATTRIBUTES
) -> tuple[str, ...]:
    """ "Male*Young" -> ("Male", "Young").

    Raises:
      UserError: exit 2, an unknown name, one name twice, or too many names.
    """
    names = tuple(name.strip() for name in text.split(_CROSS))
    for name in names:
        if name not in candidates:
            raise usage_error(
                f"--slices: there is no attribute {name!r}.",
                did_you_mean(name, candidates),
            )
    if len(set(names)) < len(names):
        raise usage_error(
            f"--slices: {text} crosses an attribute with itself.", "Name it once."
        )
    if len(names) > _MOST_CROSSED:
        raise usage_error(
            f"--slices: {text} crosses {len(names)} attributes, more than "
            f"{_MOST_CROSSED}.",
            "The groups would be tiny: cross fewer.",
        )
    return names


def partitions(
    predictions: pd.DataFrame,
    attribute: str,
    slices: Iterable[str] = (),
    outside: pd.DataFrame | None = None,
) -> list[Partition]:
    """Every attribute but the label's, then the chosen crossings, then the table.

    Args:
      predictions: columns `image_id` and, of each attribute, its 0 or 1.
      attribute: the label's; it makes a partition of its own only if a slice names it.
      slices: as in `parse_slice`.
      outside: categories by image id, see `read_group_csv`.

    Raises:
      UserError: exit 2, see `parse_slice`.
      ValueError: an attribute's value is neither 0 nor 1.
    """
    known = attributes_of(predictions)
    chosen = dict.fromkeys(parse_slice(text, known) for text in slices)
    found = [
        _crossed(predictions, (name,), (name,) in chosen)
        for name in known
        if name != attribute or (name,) in chosen
    ]
    found += [_crossed(predictions, names, True) for names in chosen if len(names) > 1]
    if outside is not None:
        rows = outside.reindex(predictions[IMAGE_ID])
        found += [_by_column(rows[column].fillna("")) for column in outside]
    return found


def _crossed(
    predictions: pd.DataFrame, names: tuple[str, ...], chosen: bool
) -> Partition:
    codes = np.zeros(len(predictions), np.int64)
    for name in names:
        values = predictions[name].to_numpy()
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"a value of {name} is neither 0 nor 1")
        codes = 2 * codes + values.astype(np.int64)
    combinations = list(itertools.product((0, 1), repeat=len(names)))
    return Partition(
        name=_CROSS.join(names),
        kind=CROSSING if len(names) > 1 else ATTRIBUTE,
        chosen=chosen,
        names=tuple(
            _CROSS.join(
                f"{name}={value}" for name, value in zip(names, row, strict=True)
            )
            for row in combinations
        ),
        titles=tuple(
            " × ".join(
                _words(name, value) for name, value in zip(names, row, strict=True)
            )
            for row in combinations
        ),
        codes=codes,
    )


def _words(name: str, value: int) -> str:
    return ("" if value else "not ") + name.replace("_", " ")


def _by_column(values: pd.Series) -> Partition:
    categories = sorted(set(values) - {""})
    numbers = {category: number for number, category in enumerate(categories)}
    return Partition(
        name=values.name,
        kind=TABLE,
        chosen=True,
        names=tuple(f"{values.name}={category}" for category in categories),
        titles=tuple(f"{values.name}: {category}" for category in categories),
        codes=np.array([numbers.get(value, _NO_GROUP) for value in values], np.int64),
    )


def read_group_csv(path: Path, image_ids: Iterable[str]) -> pd.DataFrame:
    """Reads an outside table of groups.

    Args:
      path: a CSV file with a column `image_id` and columns of categories; an empty
        field leaves the image out of that column's groups.
      image_ids: the images that the groups are for; others may be in the file.

    Returns:
      Strings by image id, one column per column of categories, "" where empty.

    Raises:
      UserError: exit 3, naming file and line: no such file, no text, another number of
        fields than the header, an image twice, a column missing or of too many values;
        none of the images is in it.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = _parse(path, csv.reader(file, strict=True))
    except OSError as error:
        raise _error(
            f"{path} cannot be read: {error.strerror}.", "Check it."
        ) from error
    except UnicodeDecodeError as error:
        raise _error(f"{path} is not a UTF-8 text file.", "Save it as one.") from error
    for column in table:
        count = table[column].nunique()
        if count > _MOST_CATEGORIES:
            raise _error(
                f"{path}:1 column {column!r} has {count:,} different values, more than "
                f"{_MOST_CATEGORIES}.",
                "Leave it out, or put its values into a few classes.",
            )
    if not table.index.isin(list(image_ids)).any():
        example = f", but {table.index[0]}" if len(table) else ""
        raise _error(
            f"{path} names none of the images that were predicted{example}.",
            f"Its {IMAGE_ID} must be file names as in predictions.csv.",
        )
    return table


def _parse(path: Path, reader) -> pd.DataFrame:
    """The rows of a csv.reader, checked line by line."""
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        key = header.index(IMAGE_ID)
        lines, rows = {}, []
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise _error(
                    f"{where} has {len(row)} fields, the header has {len(header)}.",
                    "Mend the line.",
                )
            row = [value.strip() for value in row]
            if row[key] in lines:
                raise _error(
                    f"{where} names {row[key]} again, after line {lines[row[key]]}.",
                    "Keep one line per image.",
                )
            lines[row[key]] = reader.line_num
            rows.append(row)
    except csv.Error as error:
        raise _error(f"{path}:{reader.line_num} {error}.", "Mend the line.") from error
    return pd.DataFrame(rows, columns=header, dtype=str).set_index(IMAGE_ID)


def _check_header(path: Path, header: list[str]) -> None:
    remedy = f"The first line must name {IMAGE_ID} and other columns, between commas."
    if IMAGE_ID not in header:
        raise _error(f"{path}:1 has no column {IMAGE_ID}.", remedy)
    if len(header) == 1:
        raise _error(f"{path}:1 has no column of categories.", remedy)
    for number, name in enumerate(header):
        if not name or name in header[:number]:
            raise _error(
                f"{path}:1 column {number + 1} has no name of its own.", remedy
            )
        if name in celeba.ATTRIBUTES:
            raise _error(
                f"{path}:1 column {name!r} has the name of a CelebA attribute.",
                "Rename it, so that groups can be told apart.",
            )


def _error(cause: str, remedy: str) -> UserError:
    return UserError(cause, remedy, ExitCode.INPUT_DATA)
