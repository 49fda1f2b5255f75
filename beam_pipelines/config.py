"""The build's options: one frozen dataclass that cannot be wrong."""

import dataclasses
import math
import re
from typing import Any

from beam_pipelines.datasets import DATASETS
from schemas import celeba
from schemas.dataset import DataSet
from support import images
from support.command import option, outside_ranges
from support.errors import did_you_mean, usage_error

BALANCES = ("exact", "undersample", "none")
SPLIT_RULES = ("identity", "official", "random")

#: The files spell "absent" -1; both spellings are understood.
_FILTER_VALUES = {"1": 1, "0": 0, "-1": 0}


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """What to build, from what, where to.

    Raises:
      UserError: exit 2, for a value that no data could make right.
    """

    celeba_dir: str = option(
        "data/celeba",
        "Folder of the images (or their zip) and tables, or of Parquet; a zip; gs://.",
    )
    output_dir: str = option(
        "data/tfrecords", "Folder or gs:// prefix that the dataset becomes."
    )
    dataset: str = option("celeba", f"Data set in it: {', '.join(DATASETS)}.")
    attribute: str = option("Male", "The attribute that is the label.")
    num_examples: int = option(
        0, "Examples over all splits; 0 = all there are.", (0, 2**40)
    )
    balance: str = option(
        "exact",
        "Classes in each split: exact (equally often, and --num_examples must be "
        "reached), undersample (all of the rarer class, as many of the other, at most "
        "--num_examples) or none (as they come, with class weights in the manifest).",
    )
    split: str = option(
        "identity",
        "What splits go by: identity (nobody is in two), official, or random.",
    )
    split_fractions: tuple[float, ...] = option(
        (0.64, 0.16, 0.20), "Shares of train, validation and test; they add up to 1."
    )
    filter: tuple[str, ...] = option(
        (), "Use only images with these attributes, like Young=1,Blurry=0."
    )
    max_per_identity: int = option(
        0, "Images of one person at most; 0 = no limit.", (0, 2**31 - 1)
    )
    seed: int = option(0, "Seed of the selection and of the order.", (0, 2**63 - 1))
    num_shards: int = option(
        0, "Shards per split; 0 = by the number of records.", (0, 99_999)
    )
    image_size: str = option("", "Resize images to S or H,W pixels; empty = do not.")
    max_bad_fraction: float = option(
        0.05, "Stop if more than this share of the images read is unusable.", (0, 1)
    )
    keep_duplicates: bool = option(
        False, "Leave equal images in several splits, where they flatter the test."
    )
    allow_wrong_count: bool = option(False, "Read tables whose row count is wrong.")
    dry_run: bool = option(False, "Print the plan and write nothing.")
    overwrite: bool = option(False, "Replace a dataset that is already there.")

    def __post_init__(self):
        _check_choice("dataset", self.dataset, tuple(DATASETS))
        _check_choice("attribute", self.attribute, self.data_set.attributes)
        _check_choice("balance", self.balance, BALANCES)
        _check_choice("split", self.split, SPLIT_RULES)
        for name, low, high in outside_ranges(self):
            raise usage_error(
                f"--{name}={getattr(self, name)} is out of range.",
                f"Use a value from {low} to {high}.",
            )
        self._check_fractions()
        if self.balance == "exact" and self.num_examples % 2:
            raise usage_error(
                f"--num_examples={self.num_examples} is odd, and --balance=exact takes "
                "as many examples of one class as of the other.",
                f"Use --num_examples={self.num_examples + 1} or --balance=none.",
            )
        self.target_size()
        if self.attribute in self.required():
            raise usage_error(
                f"--filter={','.join(self.filter)} leaves only one class of the label, "
                f"--attribute={self.attribute}.",
                "Filter by other attributes, or choose another --attribute.",
            )

    @property
    def data_set(self) -> DataSet:
        """The data set that `dataset` names."""
        return DATASETS[self.dataset]

    @property
    def is_balanced(self) -> bool:
        """Whether every split holds both classes equally often."""
        return self.balance != "none"

    @property
    def is_number_due(self) -> bool:
        """Whether fewer examples than `num_examples` are an error."""
        return bool(self.num_examples) and self.balance != "undersample"

    @property
    def narrowing(self) -> str:
        """The flags that leave images out, as they were given; "" without any."""
        flags = [f"--filter={','.join(self.filter)}"] if self.filter else []
        if self.max_per_identity:
            flags.append(f"--max_per_identity={self.max_per_identity}")
        return " ".join(flags)

    def required(self) -> dict[str, int]:
        """The attributes that `filter` asks for, 0 or 1 each, in the official order.

        Raises:
          UserError: exit 2, for a word that is no condition, an unknown attribute, or
            one that is asked for with both values.
        """
        found: dict[str, int] = {}
        for word in self.filter:
            name, _, value = (part.strip() for part in word.partition("="))
            if value not in _FILTER_VALUES or not name:
                raise usage_error(
                    f"--filter: {word!r} is not ATTRIBUTE=1 or ATTRIBUTE=0.",
                    "Write it like --filter=Young=1,Blurry=0.",
                )
            _check_choice("filter", name, self.data_set.attributes)
            if found.setdefault(name, _FILTER_VALUES[value]) != _FILTER_VALUES[value]:
                raise usage_error(
                    f"--filter={','.join(self.filter)} asks for {name}=1 and "
                    f"{name}=0; no image has both.",
                    "Leave one of them out.",
                )
        names = self.data_set.attributes
        return {name: found[name] for name in names if name in found}

    def target_size(self) -> tuple[int, int] | None:
        """(height, width) that images are resized to; None = they stay as they are."""
        if not self.image_size:
            return None
        words = self.image_size.split(",")
        numbers = [re.fullmatch(r"\s*(\d{1,4})\s*", word) for word in words]
        sides = [int(number[1]) if number else 0 for number in numbers]
        if len(sides) > 2 or not all(8 <= side <= 4096 for side in sides):
            raise usage_error(
                f"--image_size={self.image_size} is not S or H,W in pixels, 8 to 4096.",
                "Write it like --image_size=96 or --image_size=218,178.",
            )
        return sides[0], sides[-1]

    def recipe(self) -> dict[str, Any]:
        """What decides the dataset's bytes, apart from its sources."""
        size = self.target_size()
        official = self.split == "official"
        # Only if it is given: manifests from before it had it do not change.
        kept = {"keep_duplicates": True} if self.keep_duplicates else {}
        return {
            "attribute": self.attribute,
            "num_examples": self.num_examples,
            "balance": self.balance,
            "split": self.split,
            "split_fractions": None if official else list(self.split_fractions),
            "filter": self.required(),
            "max_per_identity": self.max_per_identity,
            "seed": self.seed,
            "num_shards": self.num_shards,
            "image_size": None if size is None else list(size),
            "jpeg_quality": images.JPEG_QUALITY,
            **kept,
        }

    def _check_fractions(self) -> None:
        shares = self.split_fractions
        is_one = math.isclose(sum(shares), 1.0, abs_tol=1e-6)
        if len(shares) != len(celeba.SPLITS) or min(shares) <= 0 or not is_one:
            raise usage_error(
                f"--split_fractions={','.join(map(str, shares))} is not three positive "
                "numbers that add up to 1.",
                "Write it like --split_fractions=0.64,0.16,0.20.",
            )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise usage_error(
            f"--{name}={value} is not known.", did_you_mean(value, choices)
        )
