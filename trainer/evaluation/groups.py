"""Groups of images: by attributes, by crossed attributes, by external tables.

A slice is written `Young` or, crossed, `Male*Eyeglasses`: every combination of the
values of both is a group. An external table, say of skin tones, is a CSV file with a
column `image_id` and columns of categories; each category is a group.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from support.errors import UserError, did_you_mean, input_error, usage_error

ATTRIBUTE, CROSSING, TABLE = "attribute", "crossing", "table"
IMAGE_ID = "image_id"

_NOT_ATTRIBUTES = (IMAGE_ID, "identity", "label", "logit", "probability")
_CROSS = "*"
#: Four attributes make 16 groups, most of them too small to say anything of.
_MOST_CROSSED = 4
#: More than these are numbers or names rather than categories.
_MOST_CATEGORIES = 50


@dataclasses.dataclass(frozen=True)
class Partition:
    """Images divided into groups that do not overlap.

    Attributes:
      name: of the attribute, the crossing or the external table's column.
      kind: ATTRIBUTE, CROSSING or TABLE.
      chosen: whether it was asked for by name.
      names: of the groups, for programs: "Male=1*Young=0".
      titles: of the groups, for people: "Male × not Young".
      codes: (n,) int64, the number of each image's group, -1 = in none.
    """

    name: str
    kind: str
    chosen: bool
    names: Sequence[str]
    titles: Sequence[str]
    codes: np.ndarray


def attributes_of(predictions: pd.DataFrame) -> list[str]:
    """The names of the attributes that predictions have columns of."""
    return [name for name in predictions if name not in _NOT_ATTRIBUTES]


def parse_slice(text: str, candidates: Sequence[str] | None = None) -> tuple[str, ...]:
    """ "Male*Young" -> ("Male", "Young"); checked against `candidates` if given.

    Raises:
      UserError: exit 2, an unknown name, one name twice, or too many names.
    """
    names = tuple(name.strip() for name in text.split(_CROSS))
    for name in names:
        if not name or candidates is not None and name not in candidates:
            raise usage_error(
                f"--slices: there is no attribute {name!r}.",
                did_you_mean(name, candidates or ()),
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
    external: pd.DataFrame | None = None,
) -> list[Partition]:
    """Every attribute but the label's, then the chosen crossings, then the table.

    Args:
      predictions: columns `image_id` and, of each attribute, its 0 or 1.
      attribute: the label's; it makes a partition of its own only if a slice names it.
      slices: as in `parse_slice`.
      external: categories by image id, see `read_group_csv`.

    Raises:
      UserError: exit 2, see `parse_slice`.
      ValueError: an attribute's value is neither 0 nor 1.
    """
    known = attributes_of(predictions)
    chosen = dict.fromkeys(parse_slice(text, known) for text in slices)
    single = [(name,) for name in known if name != attribute or (name,) in chosen]
    crossed = [names for names in chosen if len(names) > 1]
    parts = [
        _crossed(predictions, names, names in chosen) for names in single + crossed
    ]
    if external is not None:
        rows = external.reindex(predictions[IMAGE_ID])
        parts += [_by_column(rows[column]) for column in external]
    return [part for part in parts if part.names]


def _crossed(
    predictions: pd.DataFrame, names: tuple[str, ...], chosen: bool
) -> Partition:
    values = predictions[list(names)].to_numpy()
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"a value of {' or '.join(names)} is neither 0 nor 1")
    groups = list(itertools.product((0, 1), repeat=len(names)))
    return Partition(
        name=_CROSS.join(names),
        kind=CROSSING if len(names) > 1 else ATTRIBUTE,
        chosen=chosen,
        names=[_CROSS.join(map("{}={}".format, names, group)) for group in groups],
        titles=[" × ".join(map(_title, names, group)) for group in groups],
        codes=np.ravel_multi_index(values.astype(np.int64).T, (2,) * len(names)),
    )


def _title(name: str, value: int) -> str:
    return ("" if value else "not ") + name.replace("_", " ")


def _by_column(values: pd.Series) -> Partition:
    codes, categories = pd.factorize(values.mask(values == ""), sort=True)
    return Partition(
        name=values.name,
        kind=TABLE,
        chosen=True,
        names=[f"{values.name}={category}" for category in categories],
        titles=[f"{values.name}: {category}" for category in categories],
        codes=codes,
    )


def read_group_csv(path: Path, predictions: pd.DataFrame) -> pd.DataFrame:
    """Reads an external table of groups.

    Args:
      path: a CSV file with a column `image_id` and columns of categories; an empty
        field excludes the image from that column's groups.
      predictions: of the images that the groups are for; others may be in the file.

    Returns:
      Strings by image id, one column per column of categories, "" where empty.

    Raises:
      UserError: exit 3, naming the file: it cannot be read or parsed, a column is
        missing, badly named or of too many values, an image is named twice, or none
        of the images is in it.
    """
    try:
        # Without a header pandas refuses longer lines, and renames no equal columns.
        rows = pd.read_csv(
            path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        why = getattr(error, "strerror", None) or str(error).strip()
        raise _error(path, f"cannot be read: {why}") from error
    rows = rows.apply(lambda column: column.str.strip())
    header = list(rows.iloc[0])
    usable = set(header) - {"", *attributes_of(predictions)}
    if IMAGE_ID not in header or len(header) == 1 or len(usable) < len(header):
        names = ", ".join(map(repr, header))
        raise _error(f"{path}:1", f"names the columns {names}")
    table = rows[1:].set_axis(header, axis=1).set_index(IMAGE_ID)
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise _error(path, f"names {twice[0]} twice")
    for column, count in table.nunique().items():
        if count > _MOST_CATEGORIES:
            raise _error(path, f"column {column!r} has {count:,} different values")
    if not table.index.isin(predictions[IMAGE_ID]).any():
        example = f", but {table.index[0]}" if len(table) else ""
        raise _error(path, f"names none of the images that were predicted{example}")
    return table


def _error(place: Path | str, what: str) -> UserError:
    return input_error(
        f"{place} {what}.",
        f"It must be a UTF-8 CSV file with one line per image: {IMAGE_ID} as in "
        f"predictions.csv, and columns of up to {_MOST_CATEGORIES} categories that are "
        "not named like an attribute.",
    )
