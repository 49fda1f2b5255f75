"""One shard: its plan, how it is written, and the report on it."""

import collections
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from beam_pipelines.planning.selection import Plan
from beam_pipelines.sources.images import ImageSource
from beam_pipelines.writing.store import Store
from schemas import example
from support.framing import frame
from support.images import BadImage, prepare_jpeg

_PLAN_FILE = "plan.arrow"


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """The content of one shard: arrays with one entry per record.

    Attributes:
      name: the shard's file name.
      names: (records,) bytes strings, file names of images.
      labels: (records,) uint8, 0 or 1.
      identities: (records,) int32.
      attributes: (records, bytes) uint8, a bit for each.
    """

    name: str
    names: np.ndarray
    labels: np.ndarray
    identities: np.ndarray
    attributes: np.ndarray

    @property
    def digest(self) -> str:
        """sha256 of the content: equal plans make equal shards."""
        digest = hashlib.sha256(b"\n".join(self.names.tolist()))
        digest.update(self.labels.astype("<u1").tobytes())
        digest.update(self.identities.astype("<i4").tobytes())
        digest.update(self.attributes.tobytes())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Task:
    """All that the shards of a build have in common.

    Attributes:
      source: where the images come from.
      store: where shards and their reports go.
      size: (height, width) to resize to, None to leave images as they are.
      attributes: how many the data set has.
      needed: bytes that the whole dataset takes, 0 if unknown.
    """

    source: ImageSource
    store: Store
    size: tuple[int, int] | None
    attributes: int
    needed: int = 0


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """A writer's report on a shard, as JSON next to it.

    Attributes:
      name: the shard's file name.
      plan: digest of the plan that was followed.
      records: how many the shard contains.
      bytes: its size.
      sha256: of the file.
      class_counts: records with label 0 and with label 1.
      image_sizes: "height x width" -> how many images.
      turned: images to which an EXIF orientation was applied.
      images_sha256: of each image in the shard, in order, as hexadecimal digits.
      rejected: (file name, reason, detail) of images that cannot be used.
    """

    name: str
    plan: str
    records: int
    bytes: int
    sha256: str
    class_counts: tuple[int, int]
    image_sizes: dict[str, int]
    turned: int
    images_sha256: str
    rejected: tuple[tuple[str, str, str], ...]

    @property
    def images(self) -> int:
        """Images that were read, the unusable ones included."""
        return self.records + len(self.rejected)

    def save(self, store: Store) -> None:
        text = json.dumps(dataclasses.asdict(self), indent=1)
        # It may be lost in a power cut: before it is believed, the shard is compared.
        store.write(report_name(self.name), text, durable=False)

    @classmethod
    def load(cls, store: Store, name: str) -> "ShardReport | None":
        """The report on a shard, None if there is none or it cannot be read."""
        try:
            fields = json.loads(store.read(report_name(name)))
            fields["class_counts"] = tuple(fields["class_counts"])
            fields["rejected"] = tuple(tuple(row) for row in fields["rejected"])
            return cls(**fields)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def report_name(shard: str) -> str:
    """The file name of the report on a shard."""
    return f"{shard}.json"


def shard_plans(plan: Plan) -> Iterator[ShardPlan]:
    """The plan of every shard, in order."""
    for name, _, rows in plan.shards():
        yield ShardPlan(
            name=name,
            names=plan.rows.names[rows],
            labels=plan.labels[rows],
            identities=plan.rows.identities[rows],
            attributes=plan.rows.attributes[rows],
        )


def save_plans(store: Store, plans: Iterable[ShardPlan]) -> None:
    """Writes shard plans as one compact file, of which each can be read alone."""
    writer = None
    with store.writer(_PLAN_FILE) as file, contextlib.ExitStack() as stack:
        for plan in plans:
            width = plan.attributes.shape[1]
            bits = pa.array(plan.attributes.ravel())
            columns = {
                "names": pa.array(plan.names, pa.binary()),
                "labels": plan.labels,
                "identities": plan.identities,
                "attributes": pa.FixedSizeListArray.from_arrays(bits, width),
            }
            batch = pa.record_batch(columns)
            if writer is None:
                writer = stack.enter_context(pa.ipc.new_file(file, batch.schema))
            writer.write_batch(batch, custom_metadata={"shard": plan.name})


def load_plans(store: Store, numbers: Iterable[int]) -> Iterator[ShardPlan]:
    """Reads some of the plans that `save_plans` wrote, by their position."""
    with store.open(_PLAN_FILE) as file, pa.ipc.open_file(file) as stored:
        for number in numbers:
            batch, metadata = stored.get_batch_with_custom_metadata(number)
            bits = batch["attributes"]
            yield ShardPlan(
                name=metadata["shard"].decode(),
                names=np.array(batch["names"].to_pylist(), "S"),
                labels=batch["labels"].to_numpy(),
                identities=batch["identities"].to_numpy(),
                attributes=bits.flatten().to_numpy().reshape(-1, bits.type.list_size),
            )


def write_shard(plan: ShardPlan, task: Task) -> ShardReport:
    """Writes a shard, then its report; returns at once if both are right already."""
    store = task.store
    known = ShardReport.load(store, plan.name)
    if known and known.plan == plan.digest:
        if store.contains(plan.name, known.sha256):
            return known
    tally = _Tally()
    sha256 = hashlib.sha256()
    size = 0
    with store.writer(plan.name, durable=False) as file:
        for record in _records(plan, task, tally):
            framed = frame(record)
            sha256.update(framed)
            file.write(framed)
            size += len(framed)
    report = ShardReport(
        name=plan.name,
        plan=plan.digest,
        records=sum(tally.class_counts),
        bytes=size,
        sha256=sha256.hexdigest(),
        class_counts=tuple(tally.class_counts),
        image_sizes=dict(sorted((f"{h}x{w}", n) for (h, w), n in tally.shapes.items())),
        turned=tally.turned,
        images_sha256=tally.images_sha256.hex(),
        rejected=tuple(tally.rejected),
    )
    report.save(store)
    return report


@dataclasses.dataclass
class _Tally:
    """Counts made while a shard is written."""

    class_counts: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
    shapes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    turned: int = 0
    images_sha256: bytearray = dataclasses.field(default_factory=bytearray)
    rejected: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)


def _records(plan: ShardPlan, task: Task, tally: _Tally) -> Iterator[bytes]:
    """Reads, checks and serializes the images of a shard, counting as it goes."""
    bits = np.unpackbits(plan.attributes, axis=1, count=task.attributes)
    columns = zip(
        plan.names.tolist(),
        plan.labels.tolist(),
        plan.identities.tolist(),
        bits,
        strict=True,
    )
    for name, label, identity, attributes in columns:
        image_id = name.decode()
        try:
            data = task.source.read(image_id)
            image, shape, turned = prepare_jpeg(data, task.size)
        except BadImage as error:
            tally.rejected.append((image_id, error.reason, error.detail))
            continue
        tally.class_counts[label] += 1
        tally.shapes[shape] += 1
        tally.turned += turned
        tally.images_sha256 += hashlib.sha256(image).digest()
        yield example.encode(
            example.Example(image, label, image_id, identity, attributes.tobytes())
        )
