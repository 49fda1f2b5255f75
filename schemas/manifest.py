"""The manifest: what a dataset folder holds. Readers open what it lists, never a glob.

A TFRecord's checksums cannot see a file cut at a record boundary, doubled, emptied or
missing; the manifest can. It says nothing of time, host, path, runner or number of
workers: equal data, equal manifest.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from schemas import celeba
from schemas.dataset import STRICT, About
from support.documents import Count, DocumentError, Sha256, parse_json

FILE_NAME = "manifest.json"
FORMAT = "celeba-attribute-tfrecords"
VERSION = 2

#: Readers join the name to the folder.
_FileName = Annotated[str, Field(pattern=r"^[^/\\\x00]+$")]
_Side = Annotated[int, Field(ge=1, lt=1 << 16)]  # pixels
_Weight = Annotated[FiniteFloat, Field(ge=0)]


class ManifestError(DocumentError):
    """A manifest that is damaged, edited, foreign or of another version."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file; `class_counts` is (label 0, label 1)."""

    name: _FileName
    split: Literal[celeba.SPLITS]
    records: Count
    bytes: Count
    sha256: Sha256
    class_counts: tuple[Count, Count]

    __pydantic_config__ = STRICT

    def __post_init__(self):
        if self.name in (".", ".."):
            raise ManifestError(f"{self.name} is not the name of a file")
        if sum(self.class_counts) != self.records:
            raise ManifestError(
                f"the class counts of {self.name}, {self.class_counts}, do not add up "
                f"to {self.records} records"
            )


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A dataset.

    Attributes:
      dataset: where its images come from.
      attributes: names of the binary attributes, in the order of the records.
      attribute: the attribute that is the label.
      image_shape: (height, width, 3) of every decoded image, pixels.
      config: the resolved build configuration, seed included, paths excluded.
      class_weights: weight of label 0 and of label 1; (1.0, 1.0) when balanced.
      sources: per source its fingerprint (sha256, rows, ...).
      shards: every shard of every split.
    """

    dataset: About
    attributes: tuple[str, ...]
    attribute: str
    image_shape: tuple[_Side, _Side, Literal[3]]
    config: Mapping[str, Any]
    class_weights: tuple[_Weight, _Weight]
    sources: Mapping[str, Mapping[str, Any]]
    shards: tuple[Shard, ...]

    __pydantic_config__ = STRICT

    def __post_init__(self):
        if self.attribute not in self.attributes:
            raise ManifestError(f"{self.attribute!r} is not one of the attributes")
        for names in (self.attributes, [shard.name for shard in self.shards]):
            if len(set(names)) != len(names):
                raise ManifestError("an attribute or a shard is listed twice")

    def split(self, split: str) -> tuple[Shard, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def num_examples(self, split: str) -> int:
        return sum(shard.records for shard in self.split(split))

    def class_counts(self, split: str) -> tuple[int, int]:
        counts = [shard.class_counts for shard in self.split(split)]
        return sum(count[0] for count in counts), sum(count[1] for count in counts)

    @property
    def digest(self) -> str:
        """sha256 over everything but itself."""
        text = json.dumps(self._payload(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        document = self._payload() | {"digest": self.digest}
        return json.dumps(document, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parses and checks a manifest.

        Raises:
          ManifestError: not JSON, foreign, another version, or not matching its digest.
        """
        try:
            document = parse_json(text, dict[str, Any])
            if document.pop("format", None) != FORMAT:
                raise ManifestError(f"is not a manifest of the format {FORMAT!r}.")
            version = document.pop("version", None)
            if version != VERSION:
                what = f"is of version {version}; this program reads {VERSION}."
                raise ManifestError(what)
            digest = document.pop("digest", None)
            manifest = parse_json(json.dumps(document), cls)
        except DocumentError as error:
            raise ManifestError(str(error)) from error
        if manifest.digest != digest:
            raise ManifestError("was changed after it was written (digest differs).")
        return manifest

    def _payload(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
