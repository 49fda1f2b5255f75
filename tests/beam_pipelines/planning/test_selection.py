"""The plan: quotas, balance, people, order, replacement; checked against arithmetic."""

import dataclasses

import numpy as np
import pytest

from beam_pipelines.config import BuildConfig
from beam_pipelines.planning import hashing, quotas, selection
from support.errors import ExitCode, UserError
from tests.beam_pipelines.tables import ROWS, bits


def test_largest_remainder_adds_up():
    assert quotas.largest_remainder(5000, (0.64, 0.16, 0.2)).tolist() == [
        3200,
        800,
        1000,
    ]
    assert quotas.largest_remainder(10, (1, 1, 1)).tolist() == [4, 3, 3]
    assert quotas.largest_remainder(1, (0.2, 0.5, 0.3)).tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_nearly_every_image_of_the_rarer_class_can_be_asked_for(seed):
    ones = int(bits(ROWS, "Male").sum())
    total = 2 * ones - 10
    plan = selection.plan(ROWS, BuildConfig(num_examples=total, seed=seed))
    assert plan.class_counts().sum() == total
    assert (plan.class_counts()[:, 0] == plan.class_counts()[:, 1]).all()
    assert selection.people_in_two_splits(plan) == 0


def test_images_of_unknown_people_are_people_of_their_own():
    rows = dataclasses.replace(ROWS, identities=np.full(len(ROWS), -1, np.int32))
    plan = selection.plan(rows, BuildConfig(num_examples=1000))
    assert plan.class_counts().tolist() == [[320, 320], [80, 80], [100, 100]]
    assert selection.people_in_two_splits(plan) == 0


def test_random_split_keeps_the_share_of_each_class():
    config = BuildConfig(split="random", balance="none")
    plan = selection.plan(ROWS, config)
    zeros, ones = np.bincount(plan.labels)
    assert (
        plan.class_counts().tolist()
        == np.column_stack(
            [
                quotas.largest_remainder(zeros, config.split_fractions),
                quotas.largest_remainder(ones, config.split_fractions),
            ]
        ).tolist()
    )
    assert selection.people_in_two_splits(plan) > 0


def test_official_proportions_are_kept():
    config = BuildConfig(split="official", num_examples=1000)
    plan = selection.plan(ROWS, config)
    shares = quotas.largest_remainder(500, np.bincount(ROWS.official))
    assert plan.class_counts().tolist() == [[share, share] for share in shares]
    assert (ROWS.official[plan.selected(1)] == 1).all()


def test_the_hash_is_pinned():
    """Datasets of other versions and machines rely on it."""
    names = np.array(["000001.jpg", "a-much-longer-name.jpeg"], "S")
    expected = [11851481848076195750, 1322624093328905472]
    assert hashing.name_keys(names).tolist() == expected
    assert hashing.name_keys(names[:1].astype("S10")).tolist() == expected[:1]


def test_seeds_choose_differently():
    chosen = [
        selection.plan(ROWS, BuildConfig(num_examples=1000, seed=seed)).selected(0)
        for seed in (0, 1)
    ]
    assert len(np.intersect1d(*chosen)) < 0.6 * len(chosen[0])
    labels = bits(ROWS, "Male")[chosen[0]]
    halves = labels[: len(labels) // 2].mean(), labels[len(labels) // 2 :].mean()
    assert abs(halves[0] - halves[1]) < 0.15  # classes are mixed, not one by one


def test_rejected_images_are_replaced_by_the_next_of_their_pool():
    config = BuildConfig(num_examples=1000)
    plan = selection.plan(ROWS, config)
    slots = plan.slots[0]
    holes = np.flatnonzero(plan.labels[slots] == 1)[[3, 7]]
    after = selection.replace(plan, slots[holes], config)
    pool, used = plan.pools[0, 1], plan.used[0, 1]
    assert after.slots[0][holes].tolist() == pool[used : used + 2].tolist()
    kept = np.delete(np.arange(len(slots)), holes)
    assert np.array_equal(after.slots[0][kept], slots[kept])
    assert np.array_equal(after.slots[1], plan.slots[1])
    assert np.array_equal(after.class_counts(), plan.class_counts())
    again = selection.replace(after, after.slots[0][holes[:1]], config)
    assert again.slots[0][holes[0]] == pool[used + 2]


def test_running_out_of_replacements():
    everything = selection.plan(ROWS, BuildConfig())
    rarer = everything.pools[2, 1][:3]
    after = selection.replace(everything, rarer, BuildConfig())
    assert (after.class_counts()[2] == everything.class_counts()[2] - 3).all()
    assert not set(rarer) & set(after.selected(2))
    config = BuildConfig(num_examples=int(everything.class_counts().sum() - 10))
    plan = selection.plan(ROWS, config)
    with pytest.raises(UserError, match="left to replace") as caught:
        selection.replace(plan, plan.pools[0, 1][: plan.used[0, 1]], config)
    assert caught.value.exit_code == ExitCode.INPUT_DATA


def test_unbalanced_rejects_leave_gaps():
    config = BuildConfig(balance="none")
    plan = selection.plan(ROWS, config)
    bad = plan.selected(1)[:5]
    after = selection.replace(plan, bad, config)
    assert after.selected(1).tolist() == plan.selected(1)[5:].tolist()


def test_shards_cover_the_slots():
    plan = selection.plan(ROWS, BuildConfig(num_examples=2000, num_shards=3))
    shards = list(plan.shards())
    assert [name for name, _, _ in shards[:3]] == [
        f"celeba-train.tfrecord-0000{index}-of-00003" for index in range(3)
    ]
    together = np.concatenate([rows for _, split, rows in shards if split == "train"])
    assert np.array_equal(together, plan.slots[0])
    sizes = [len(rows) for _, _, rows in shards]
    assert max(sizes[:3]) - min(sizes[:3]) <= 1


def test_the_number_of_shards_follows_the_records():
    def shards(sizes):
        slots = tuple(np.zeros(size, np.int64) for size in sizes)
        return [len(part) - 1 for part in selection._shard_bounds(slots, 0)]

    assert shards((3200, 800, 1000)) == [13, 4, 4]
    assert shards((129_663, 32_416, 40_520)) == [82, 21, 26]
    assert shards((10, 1, 1)) == [1, 1, 1]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"num_examples": 100_000}, r"allow [\d,]+.*Use --num_examples=\d+"),
        ({"num_examples": 100_000, "balance": "none"}, "Use --num_examples="),
        ({"split_fractions": (0.999998, 1e-6, 1e-6), "num_examples": 20}, "validation"),
    ],
)
def test_impossible_requests(options, words):
    with pytest.raises(UserError, match=words) as caught:
        selection.plan(ROWS, BuildConfig(**options))
    assert caught.value.exit_code == ExitCode.INPUT_DATA


def test_a_class_without_images():
    rows = dataclasses.replace(ROWS, attributes=np.zeros_like(ROWS.attributes))
    with pytest.raises(UserError, match="is with Male"):
        selection.plan(rows, BuildConfig())


def test_an_official_split_that_is_all_train():
    rows = dataclasses.replace(ROWS, official=np.zeros(len(ROWS), np.int8))
    with pytest.raises(UserError, match="validation and test.*--split=identity"):
        selection.plan(rows, BuildConfig(split="official"))
    rows = dataclasses.replace(rows, identities=np.full(len(ROWS), -1, np.int32))
    with pytest.raises(UserError, match="validation and test.*--split=random"):
        selection.plan(rows, BuildConfig(split="official"))


@pytest.mark.parametrize("num_examples", [0, 20, 100_000])
def test_a_split_that_lacks_a_class_is_named(num_examples):
    male = bits(ROWS, "Male") == 1
    official = np.where(male & (ROWS.official == 2), 0, ROWS.official).astype(np.int8)
    rows = dataclasses.replace(ROWS, official=official)
    config = BuildConfig(split="official", num_examples=num_examples)
    with pytest.raises(UserError, match="No image with Male is in test.*identity"):
        selection.plan(rows, config)
