"""The manifest: what a dataset folder holds. Readers open what it lists, never a glob.

A TFRecord's checksums cannot see a file cut at a record boundary, doubled, emptied or
missing; the manifest can. It says nothing of time, host, path, runner or number of
workers: equal data, equal manifest.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from schemas import celeba
from schemas.dataset import About

FILE_NAME = "manifest.json"
FORMAT = "celeba-attribute-tfrecords"
VERSION = 2

_LARGEST = 1 << 53  # of a number of bytes or records
_LARGEST_SIDE = 1 << 16  # pixels


class ManifestError(ValueError):
    """A manifest that is damaged, edited, foreign or of another version."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file; `class_counts` is (label 0, label 1)."""

    name: str
    split: str
    records: int
    bytes: int
    sha256: str
    class_counts: tuple[int, int]

    def __post_init__(self):
        # Readers join the name to the folder.
        plain = isinstance(self.name, str) and self.name not in ("", ".", "..")
        if not plain or {"/", "\\", "\0"} & set(self.name):
            raise ManifestError(f"{self.name!r} is not a plain file name")
        counts = (self.records, self.bytes, *self.class_counts)
        if len(counts) != 4 or not all(_is_count(count) for count in counts):
            raise ManifestError(f"{self.name}: records, bytes or classes are no counts")
        if not isinstance(self.sha256, str):
            raise ManifestError(f"{self.name}: {self.sha256!r} is no sha256")
        if sum(self.class_counts) != self.records:
            raise ManifestError(
                f"{self.name}: class counts {self.class_counts} do not add up to "
                f"{self.records} records"
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
    image_shape: tuple[int, int, int]
    config: Mapping[str, Any]
    class_weights: tuple[float, float]
    sources: Mapping[str, Mapping[str, Any]]
    shards: tuple[Shard, ...]

    def __post_init__(self):
        self._check_types()
        unknown = {shard.split for shard in self.shards} - set(celeba.SPLITS)
        if unknown:
            raise ManifestError(f"split {min(unknown)!r} is not one of {celeba.SPLITS}")
        names = [shard.name for shard in self.shards]
        if len(set(names)) != len(names):
            raise ManifestError("a shard is listed twice")

    def _check_types(self):
        texts = (*dataclasses.astuple(self.dataset), *self.attributes)
        if not all(isinstance(text, str) and text for text in texts):
            raise ManifestError("dataset or attributes are not texts")
        if len(set(self.attributes)) != len(self.attributes):
            raise ManifestError("an attribute is listed twice")
        if self.attribute not in self.attributes:
            raise ManifestError(f"{self.attribute!r} is not one of the attributes")
        if not (
            len(self.image_shape) == 3
            and all(_is_count(side) for side in self.image_shape)
            and 1 <= min(self.image_shape[:2]) <= max(self.image_shape) < _LARGEST_SIDE
            and self.image_shape[2] == 3
        ):
            raise ManifestError(f"{self.image_shape} is no shape of images")
        if len(self.class_weights) != 2 or not all(
            isinstance(weight, float | int) and 0 <= weight < math.inf
            for weight in self.class_weights
        ):
            raise ManifestError(f"{self.class_weights} are no weights of two classes")
        objects = (self.config, self.sources, *self.sources.values())
        if not all(isinstance(value, Mapping) for value in objects):
            raise ManifestError("config, sources or one of these is no object")

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
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise ManifestError(f"not complete JSON: {error}") from error
        except (RecursionError, ValueError) as error:
            raise ManifestError("nested too deeply, or a number is too long") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ManifestError(f"not a manifest of the format {FORMAT!r}")
        if document.get("version") != VERSION:
            raise ManifestError(
                f"version {document.get('version')}, this program reads {VERSION}"
            )
        try:
            manifest = cls(
                dataset=About(**document["dataset"]),
                attributes=tuple(document["attributes"]),
                attribute=document["attribute"],
                image_shape=tuple(document["image_shape"]),
                config=document["config"],
                class_weights=tuple(document["class_weights"]),
                sources=document["sources"],
                shards=tuple(
                    Shard(**shard | {"class_counts": tuple(shard["class_counts"])})
                    for shard in document["shards"]
                ),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ManifestError(f"a field is missing or unknown: {error}") from error
        added = set(document) - set(manifest._payload()) - {"digest"}
        if added or manifest.digest != document.get("digest"):
            raise ManifestError("it was changed after it was written (digest differs)")
        return manifest

    def _payload(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST
