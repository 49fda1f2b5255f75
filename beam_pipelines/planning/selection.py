"""Which image goes where: one pure function on arrays, no pixels, no files.

Rows are ordered by a hash of (seed, file name), so that the choice depends neither on
the platform nor on the order of any listing. A pool is the images of one split and
class in that order: its first ones are selected, the others stand by as replacements.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from beam_pipelines.config import BuildConfig
from beam_pipelines.planning import hashing, quotas, splits
from beam_pipelines.sources.annotations import attribute_bits
from beam_pipelines.sources.rows import Rows
from schemas import celeba
from schemas.dataset import DataSet
from support.errors import input_error

#: By default a dataset has about this many shards, each of a size between the two.
_SHARDS, _SMALLEST_SHARD, _LARGEST_SHARD = 128, 256, 16_384

_EMPTY = -1  # a slot whose image was rejected and that nothing can fill


@dataclasses.dataclass(frozen=True)
class Plan:
    """Who is in which split, and which image is in which slot of which shard.

    Attributes:
      data_set: what the images are.
      rows: all annotated images that exist, candidates or not.
      labels: (rows,) uint8, 0 or 1.
      pools: per (split, label) the candidates of that pool in rank order.
      used: (splits, 2) how many rows of each pool have been given a slot.
      slots: per split the row in each slot, -1 if the slot is given up.
      bounds: per split the first slot of each shard, and the number of slots.
    """

    data_set: DataSet
    rows: Rows
    labels: np.ndarray
    pools: dict[tuple[int, int], np.ndarray]
    used: np.ndarray
    slots: tuple[np.ndarray, ...]
    bounds: tuple[np.ndarray, ...]

    def shards(self) -> Iterable[tuple[str, str, np.ndarray]]:
        """Yields name, split and rows of every shard, in order."""
        for split, slots, bounds in zip(
            celeba.SPLITS, self.slots, self.bounds, strict=True
        ):
            total, key = len(bounds) - 1, self.data_set.about.key
            for shard in range(total):
                rows = slots[bounds[shard] : bounds[shard + 1]]
                name = f"{key}-{split}.tfrecord-{shard:05d}-of-{total:05d}"
                yield name, split, rows[rows != _EMPTY]

    def selected(self, split: int) -> np.ndarray:
        """The rows that a split holds, in slot order."""
        return self.slots[split][self.slots[split] != _EMPTY]

    def class_counts(self) -> np.ndarray:
        """(splits, 2) selected examples."""
        labels = [self.labels[self.selected(split)] for split in range(len(self.slots))]
        return np.array([np.bincount(part, minlength=2) for part in labels])


def plan(rows: Rows, config: BuildConfig) -> Plan:
    """Filters, splits, balances, orders and shards.

    The splits are made of all rows, before `filter` and `max_per_identity` leave any
    out: with the same attribute and seed, who is a test person does not depend on them.

    Raises:
      UserError: exit 3, if a class or a split is empty, too few images exist, or
        images per person are to be limited and no identity is known.
    """
    attributes = config.data_set.attributes
    labels = attribute_bits(rows.attributes, attributes.index(config.attribute))
    order = hashing.seeded(hashing.name_keys(rows.names), config.seed)
    rank = np.argsort(order, kind="stable")
    # What is left out never moves a person to another split: see `_narrow`.
    candidates = _narrow(rows, order, rank, config)
    _check_classes(labels[candidates], config)
    split_of = _split(rows, labels, order, rank, config)
    code = split_of[candidates] * 2 + labels[candidates]
    pools = {
        (split, label): candidates[code == split * 2 + label]
        for split in range(len(celeba.SPLITS))
        for label in (0, 1)
    }
    sizes = np.array([len(pool) for pool in pools.values()]).reshape(-1, 2)
    used = quotas.per_class(sizes, config, people_known(rows))
    slots = tuple(_interleave(pools, used, order, split) for split in range(len(used)))
    bounds = _shard_bounds(slots, config.num_shards)
    return Plan(config.data_set, rows, labels, pools, used, slots, bounds)


def replace(plan: Plan, rejected: np.ndarray, config: BuildConfig) -> Plan:
    """Gives each slot with a rejected image the next image of the same pool.

    Slots are served in order. Where a pool runs dry and no number must be reached, its
    slots are given up, and as many of the other class, the last ones, if classes are
    balanced. Only images of the pools step in, so that `filter` and `max_per_identity`
    hold: a person of whom the limit left images out is not replaced by those.

    Args:
      plan: the plan of the round before.
      rejected: rows whose images the writers refused in that round.
      config: the build's options.

    Raises:
      UserError: exit 3, if `num_examples` must be reached and cannot be.
    """
    used = plan.used.copy()
    slots = tuple(part.copy() for part in plan.slots)
    is_bad = np.zeros(len(plan.rows), bool)
    is_bad[rejected] = True
    for (split, label), pool in plan.pools.items():
        taken = slots[split]
        held = taken != _EMPTY
        holes = np.flatnonzero(held & is_bad[taken] & (plan.labels[taken] == label))
        spare = pool[used[split, label] :][: len(holes)]
        if config.is_number_due and len(spare) < len(holes):
            raise quotas.ran_out(config, celeba.SPLITS[split], label, len(rejected))
        taken[holes] = _EMPTY
        taken[holes[: len(spare)]] = spare
        used[split, label] += len(spare)
    if config.is_balanced:
        for part in slots:
            _even_out(part, plan.labels)
    result = dataclasses.replace(plan, used=used, slots=slots)
    counts = result.class_counts()
    quotas.check_no_split_is_empty(counts, config, people_known(plan.rows))
    return result


def people_known(rows: Rows) -> bool:
    """Whether every image has an identity, so that splits can go by person."""
    return bool((rows.identities >= 0).all())


def people_in_two_splits(plan: Plan) -> int:
    """How many known people were selected into more than one split."""
    people = [
        np.unique(plan.rows.identities[plan.selected(split)])
        for split in range(len(plan.slots))
    ]
    together = np.concatenate([part[part >= 0] for part in people])
    return len(together) - len(np.unique(together))


def leakage(plan: Plan) -> float | None:
    """The share of the test images whose person is in train too, 0 to 1.

    Images of unknown people do not count; None if there are no others in test.
    """
    train, test = (
        plan.rows.identities[plan.selected(celeba.SPLITS.index(split))]
        for split in ("train", "test")
    )
    test = test[test >= 0]
    return float(np.isin(test, train).mean()) if len(test) else None


def _narrow(
    rows: Rows, order: np.ndarray, rank: np.ndarray, config: BuildConfig
) -> np.ndarray:
    """The rows that may be selected, in rank order.

    Of each person's images that pass the filter, `max_per_identity` stay. An image of
    an unknown person is a person of its own.
    """
    attributes = config.data_set.attributes
    for name, value in config.required().items():
        index = attributes.index(name)
        rank = rank[attribute_bits(rows.attributes, index)[rank] == value]
    limit = config.max_per_identity
    if not limit:
        return rank
    if len(rows) and (rows.identities < 0).all():
        raise input_error(
            f"--max_per_identity={limit} needs to know who is in each image, and "
            f"{config.data_set.missing('identity', config.celeba_dir)}.",
            "Leave --max_per_identity out, or add the file.",
        )
    # By a hash of its own: a random split cuts the rank order, and whoever is first in
    # that is in train.
    choice = hashing.seeded(order[rank], config.seed)
    turn = np.lexsort((choice, rows.identities[rank]))
    people = rows.identities[rank[turn]]
    # An image is beyond the limit if the one `limit` before it shows the same person.
    beyond = (people[limit:] == people[:-limit]) & (people[limit:] >= 0)
    keep = np.ones(len(rank), bool)
    keep[turn[limit:][beyond]] = False
    return rank[keep]


def _check_classes(labels: np.ndarray, config: BuildConfig) -> None:
    """Raises exit 3 if the candidates are of one class only, or none."""
    left = f" that {config.narrowing} leaves" if config.narrowing else ""
    remedy = "Choose another --attribute or add images of both classes."
    if left:
        remedy = "Leave out less, or choose another --attribute."
    for label, count in enumerate(np.bincount(labels, minlength=2)):
        if not count:
            sign = "with" if label else "without"
            raise input_error(
                f"None of the {len(labels):,} images{left} is {sign} "
                f"{config.attribute}.",
                remedy,
            )


def _split(
    rows: Rows,
    labels: np.ndarray,
    order: np.ndarray,
    rank: np.ndarray,
    config: BuildConfig,
) -> np.ndarray:
    """The split of every row: (rows,) int8 index into `celeba.SPLITS`."""
    shares = config.split_fractions
    if config.split == "official":
        return rows.official
    if config.split == "random":
        return splits.at_random(labels, rank, shares)
    return splits.by_identity(rows.identities, labels, order, shares, config.seed)


def _interleave(
    pools: dict[tuple[int, int], np.ndarray],
    used: np.ndarray,
    order: np.ndarray,
    split: int,
) -> np.ndarray:
    """The selected rows of both classes of a split, in rank order."""
    chosen = np.concatenate(
        [pools[split, label][: used[split, label]] for label in (0, 1)]
    )
    return chosen[np.argsort(order[chosen], kind="stable")]


def _even_out(slots: np.ndarray, labels: np.ndarray) -> None:
    """Gives up the last slots of the class that has more."""
    held = [np.flatnonzero((slots != _EMPTY) & (labels[slots] == c)) for c in (0, 1)]
    fewer = min(len(part) for part in held)
    for part in held:
        slots[part[fewer:]] = _EMPTY


def _shard_bounds(slots: tuple[np.ndarray, ...], num_shards: int) -> tuple:
    total = sum(len(part) for part in slots)
    size = min(max(-(-total // _SHARDS), _SMALLEST_SHARD), _LARGEST_SHARD)
    bounds = []
    for part in slots:
        shards = min(num_shards or -(-len(part) // size), max(len(part), 1))
        bounds.append(np.arange(shards + 1) * len(part) // shards)
    return tuple(bounds)
