"""A data set of images with a table of binary attributes, as its owners publish it."""

import dataclasses
import re

from pydantic import ConfigDict

#: Objects in a manifest have the keys that are declared, and no empty texts.
STRICT = ConfigDict(strict=True, extra="forbid", str_min_length=1)

#: Columns of the trainer's predictions, which stand next to those of the attributes.
_RESERVED = {"image_id", "identity", "label", "logit", "probability"}


@dataclasses.dataclass(frozen=True)
class About:
    """What readers of a dataset must know of where its images come from.

    Attributes:
      key: its name in flags and in names of shards, "celeba".
      name: as people write it, "CelebA".
      terms: what its owners allow, and what its labels are; plain text.
      home_page: URL.
    """

    key: str
    name: str
    terms: str
    home_page: str

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One data set that the build can read; `beam_pipelines.datasets` lists them.

    Attributes:
      about: what the manifest says of it.
      attributes: names of the binary attributes, in the order of the records.
      image_folder, image_archive: where the images are, one of the two.
      attributes_file: the table of attributes, required.
      partition_file, identity_file: the official split, and who is shown; "" if the
        data set has no such file.

    Raises:
      ValueError: a name that files or tables of a dataset cannot have.
    """

    about: About
    attributes: tuple[str, ...]
    image_folder: str
    image_archive: str
    attributes_file: str
    partition_file: str = ""
    identity_file: str = ""

    def __post_init__(self):
        if not re.fullmatch("[a-z0-9_]+", self.about.key):
            raise ValueError(f"{self.about.key!r} is not of a-z, 0-9 and _")
        for name in self.attributes:
            if not re.fullmatch(r"\w+", name) or name in _RESERVED:
                raise ValueError(f"{name!r} cannot be the name of an attribute")

    def missing(self, kind: str, folder: str) -> str:
        """Says that there is no file of a kind, "partition" or "identity"."""
        name = getattr(self, f"{kind}_file")
        if name:
            return f"{name} is not in {folder}"
        return f"{self.about.name} has no {kind} file"
