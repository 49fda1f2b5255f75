"""Which image goes where: one pure function on arrays, no pixels, no files.

Rows are ordered by a hash of (seed, file name), so that the choice depends neither on
the platform nor on the order of any listing. A pool is the images of one split and
class in that order: its first ones are selected, the others stand by as replacements.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from beam_pipelines import quotas
from beam_pipelines.annotations import Table, attribute_bits
from beam_pipelines.config import BuildConfig
from schemas import celeba
from support.errors import ExitCode, UserError
from support.folders import Listing

#: By default a dataset has about this many shards, each of a size between the two.
_SHARDS, _SMALLEST_SHARD, _LARGEST_SHARD = 128, 256, 16_384

_EMPTY = -1  # a slot whose image was rejected and that nothing can fill


@dataclasses.dataclass(frozen=True)
class Rows:
    """The annotated images that exist, one row each.

    Attributes:
      names: (rows,) bytes strings.
      sizes: (rows,) int64, bytes.
      identities: (rows,) int32, -1 unknown.
      attributes: (rows, 5) uint8, 40 bits each.
      official: (rows,) int8 index into `celeba.SPLITS`, -1 unknown.
      missing: (any,) bytes strings: images that are annotated but not there.
    """

    names: np.ndarray
    sizes: np.ndarray
    identities: np.ndarray
    attributes: np.ndarray
    official: np.ndarray
    missing: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Who is in which split, and which image is in which slot of which shard.

    Attributes:
      rows: all candidates.
      labels: (rows,) uint8, 0 or 1.
      pools: per (split, label) the rows of that pool in rank order.
      used: (splits, 2) how many rows of each pool have been given a slot.
      slots: per split the row in each slot, -1 if the slot is given up.
      bounds: per split the first slot of each shard, and the number of slots.
    """

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
            total = len(bounds) - 1
            for shard in range(total):
                rows = slots[bounds[shard] : bounds[shard + 1]]
                name = f"celeba-{split}.tfrecord-{shard:05d}-of-{total:05d}"
                yield name, split, rows[rows != _EMPTY]

    def selected(self, split: int) -> np.ndarray:
        """The rows that a split holds, in slot order."""
        return self.slots[split][self.slots[split] != _EMPTY]

    def class_counts(self) -> np.ndarray:
        """(splits, 2) selected examples."""
        labels = [self.labels[self.selected(split)] for split in range(len(self.slots))]
        return np.array([np.bincount(part, minlength=2) for part in labels])


def join(
    attributes: Table,
    partition: Table | None,
    identity: Table | None,
    listing: Listing,
) -> Rows:
    """Brings the annotation files and the listing of the images together."""
    found = match(attributes.names, listing.names)
    there = found >= 0
    names = attributes.names[there]
    return Rows(
        names=names,
        sizes=listing.sizes[found[there]],
        identities=_look_up(identity, names, np.int32),
        attributes=attributes.values[there],
        official=_look_up(partition, names, np.int8),
        missing=attributes.names[~there],
    )


def plan(rows: Rows, config: BuildConfig) -> Plan:
    """Filters, splits, balances, orders and shards.

    Raises:
      UserError: exit 3, if a class or a split is empty or too few images exist.
    """
    labels = attribute_bits(rows.attributes, config.attribute)
    totals = np.bincount(labels, minlength=2)
    for label, count in enumerate(totals):
        if not count:
            sign = "with" if label else "without"
            raise UserError(
                f"None of the {len(rows):,} images is {sign} {config.attribute}.",
                "Choose another --attribute or add images of both classes.",
                ExitCode.INPUT_DATA,
            )
    order = _hash(name_keys(rows.names), config.seed)
    rank = np.argsort(order, kind="stable")
    splits = _split(rows, labels, order, rank, config)
    code = splits[rank] * 2 + labels[rank]
    pools = {
        (split, label): rank[code == split * 2 + label]
        for split in range(len(celeba.SPLITS))
        for label in (0, 1)
    }
    sizes = np.array([len(pool) for pool in pools.values()]).reshape(-1, 2)
    used = quotas.per_class(sizes, config, people_known(rows))
    slots = tuple(_interleave(pools, used, order, split) for split in range(len(used)))
    return Plan(
        rows,
        labels,
        pools,
        used,
        slots,
        _shard_bounds(slots, config.num_shards),
    )


def replace(plan: Plan, rejected: np.ndarray, config: BuildConfig) -> Plan:
    """Gives each slot with a rejected image the next image of the same pool.

    Slots are served in order. Where a pool runs dry and all images were asked for, its
    slots are given up, and with `balance=exact` as many of the other class, the last
    ones.

    Args:
      plan: the plan of the round before.
      rejected: rows whose images the writers refused in that round.
      config: the build's options.

    Raises:
      UserError: exit 3, if `num_examples` was given and cannot be reached.
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
        if config.num_examples and len(spare) < len(holes):
            raise quotas.ran_out(config, celeba.SPLITS[split], label, len(rejected))
        taken[holes] = _EMPTY
        taken[holes[: len(spare)]] = spare
        used[split, label] += len(spare)
    if config.balance == "exact":
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


def match(names: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Where each name stands in `others`, -1 if nowhere; (names,) int64."""
    if len(names) == len(others) and (names == others).all():
        return np.arange(len(names))
    if not len(others):
        return np.full(len(names), -1)
    keys, other_keys = name_keys(names), name_keys(others)
    order = np.argsort(other_keys, kind="stable")
    place = np.searchsorted(other_keys[order], keys)
    place = order[np.minimum(place, len(others) - 1)]
    # Names are compared too: equal keys of different names must not join.
    return np.where(others[place] == names, place, -1)


def name_keys(names: np.ndarray) -> np.ndarray:
    """A 64-bit key per name, the same on every platform and for any array width."""
    width = -(-names.dtype.itemsize // 8) * 8
    words = names.astype(f"S{width}").view("<u8").reshape(len(names), width // 8)
    keys = np.zeros(len(names), np.uint64)
    for word in words.T:
        # Zero words are the padding of the longest name's width: they do not count.
        keys = np.where(word != 0, _mix(keys ^ word), keys)
    return keys


def _split(
    rows: Rows,
    labels: np.ndarray,
    order: np.ndarray,
    rank: np.ndarray,
    config: BuildConfig,
) -> np.ndarray:
    if config.split == "official":
        return rows.official
    if config.split == "random":
        return _split_at_random(labels, rank, config.split_fractions)
    return _split_by_identity(rows.identities, labels, order, config)


def _split_at_random(
    labels: np.ndarray, rank: np.ndarray, fractions: tuple[float, ...]
) -> np.ndarray:
    """Cuts each class, in rank order, by the fractions."""
    splits = np.empty(len(labels), np.int8)
    for label in (0, 1):
        members = rank[labels[rank] == label]
        shares = quotas.largest_remainder(len(members), fractions)
        splits[members] = np.repeat(np.arange(len(shares)), shares)
    return splits


def _split_by_identity(
    identities: np.ndarray, labels: np.ndarray, order: np.ndarray, config: BuildConfig
) -> np.ndarray:
    """Gives every person whole to the split that is furthest below its quotas.

    People with many images come first, those with equally many in hash order: the
    small ones at the end fill the gaps, so that quotas are met within an image or so.
    An image of an unknown person is a person of its own.
    """
    known = identities >= 0
    alone = -2 - np.arange(len(identities))
    people, person = np.unique(np.where(known, identities, alone), return_inverse=True)
    counts = np.bincount(person * 2 + labels, minlength=2 * len(people)).reshape(-1, 2)
    keys = np.empty(len(people), np.uint64)
    keys[person] = np.where(
        known, _hash(identities.astype(np.uint64), config.seed), order
    )
    turn = np.lexsort((keys, -counts.sum(axis=1)))
    quota = np.outer(config.split_fractions, np.maximum(counts.sum(axis=0), 1))
    per_image = (1.0 / quota).tolist()
    filled = [[0.0, 0.0] for _ in per_image]
    choice = np.empty(len(people), np.int8)
    for index, (zeros, ones) in zip(turn.tolist(), counts[turn].tolist(), strict=True):
        levels = [zeros * level[0] + ones * level[1] for level in filled]
        split = levels.index(min(levels))
        filled[split][0] += zeros * per_image[split][0]
        filled[split][1] += ones * per_image[split][1]
        choice[index] = split
    return choice[person]


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


def _look_up(table: Table | None, names: np.ndarray, kind: type) -> np.ndarray:
    """The table's value of each name, -1 where it has none."""
    if table is None:
        return np.full(len(names), -1, kind)
    found = match(names, table.names)
    return np.where(found >= 0, table.values[found], -1).astype(kind)


def _hash(keys: np.ndarray, seed: int) -> np.ndarray:
    return _mix(keys ^ _mix(np.array([seed], np.uint64)))


def _mix(keys: np.ndarray) -> np.ndarray:
    """splitmix64, a bijection of 64-bit numbers without visible structure.

    Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators",
    OOPSLA 2014.
    """
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
