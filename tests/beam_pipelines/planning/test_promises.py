"""What a plan promises: balance, people, filter, limit; for every combination."""

import dataclasses

import numpy as np
import pytest

from beam_pipelines.config import BuildConfig
from beam_pipelines.planning import hashing, quotas, selection
from beam_pipelines.writing import rounds
from schemas import celeba
from support.errors import ExitCode, UserError
from tests.beam_pipelines.tables import ROWS, bits, make_table, turned

_MALE, _YOUNG = (celeba.ATTRIBUTES.index(name) for name in ("Male", "Young"))


def check_promises(plan, config):
    """What every plan promises, whatever was rejected before."""
    chosen = np.concatenate([plan.selected(split) for split in range(3)])
    assert len(np.unique(chosen)) == len(chosen)
    counts = plan.class_counts()
    if config.is_balanced:
        assert (counts[:, 0] == counts[:, 1]).all()
    if config.is_number_due:
        assert counts.sum() == config.num_examples
    if config.num_examples:
        assert counts.sum() <= config.num_examples
    if config.split == "identity":
        assert selection.people_in_two_splits(plan) == 0
    if config.split == "official":
        for split in range(3):
            assert (plan.rows.official[plan.selected(split)] == split).all()
    if config.filter:
        young, hat = (
            bits(plan.rows, name)[chosen] for name in ("Young", "Wearing_Hat")
        )
        assert young.all() and not hat.any()
    if config.max_per_identity:
        known = plan.rows.identities[chosen]
        known = known[known >= 0]
        assert np.bincount(known).max(initial=0) <= config.max_per_identity


@pytest.mark.parametrize("split", ["identity", "official", "random"])
@pytest.mark.parametrize("balance", ["exact", "undersample", "none"])
@pytest.mark.parametrize("narrowed", [(), ("Young=1", "Wearing_Hat=-1")])
@pytest.mark.parametrize("limit", [0, 1, 3])
def test_promises_hold_for_every_combination(split, balance, narrowed, limit):
    checked = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        rows = make_table(rng)
        config = BuildConfig(
            split=split,
            balance=balance,
            filter=narrowed,
            max_per_identity=limit,
            seed=seed,
        )
        try:
            everything = selection.plan(rows, config)
        except UserError as error:  # too small a table: a split lacks a class
            assert error.exit_code == ExitCode.INPUT_DATA
            continue
        check_promises(everything, config)
        checked += 1
        total = int(everything.class_counts().sum())
        few = dataclasses.replace(config, num_examples=2 * (total // 3))
        plan = selection.plan(rows, few)
        check_promises(plan, few)
        again = turned(rows, rng)
        other = selection.plan(again, few)
        for part in range(3):
            assert set(plan.selected(part)) <= set(everything.selected(part))
            names = rows.names[plan.selected(part)]
            assert np.array_equal(names, again.names[other.selected(part)])
        for settings, start in ((config, everything), (few, plan)):
            bad = rng.choice(np.concatenate(start.slots), 5, replace=False)
            try:
                after = selection.replace(start, bad, settings)
            except UserError as error:
                assert error.exit_code == ExitCode.INPUT_DATA
                continue
            check_promises(after, settings)
            assert not np.isin(np.concatenate(after.slots), bad).any()
    assert checked >= 3


@pytest.mark.parametrize("balance", ["exact", "undersample", "none"])
def test_all_that_exist_can_be_asked_for(balance):
    """Also when people left out by the filter make the fractions unreachable."""
    config = BuildConfig(balance=balance, filter=("Young=1",), max_per_identity=2)
    everything = selection.plan(ROWS, config)
    total = int(everything.class_counts().sum())
    plan = selection.plan(ROWS, dataclasses.replace(config, num_examples=total))
    for split in range(3):
        assert np.array_equal(plan.slots[split], everything.slots[split])
    more = dataclasses.replace(config, num_examples=total + 2)
    if balance == "undersample":
        plan = selection.plan(ROWS, more)
        assert plan.class_counts().sum() == total
        return
    with pytest.raises(UserError, match=f"--num_examples={total}, or 0") as caught:
        selection.plan(ROWS, more)
    assert "under --filter=Young=1 --max_per_identity=2" in caught.value.cause


def test_what_a_full_split_cannot_hold_goes_to_the_others():
    available = np.array([[100, 200], [5, 9], [30, 30]])
    config = BuildConfig(num_examples=200)
    wanted = quotas.per_class(available, config, people_known=True)
    # 64 + 16 + 20 pairs; 11 of the 16 find no room and go 0.64 to 0.20.
    assert wanted.tolist() == [[72, 72], [5, 5], [23, 23]]


def test_undersampling_takes_what_exact_would_refuse():
    few = BuildConfig(balance="undersample", num_examples=1001)
    plan = selection.plan(ROWS, few)
    assert plan.class_counts().tolist() == [[320, 320], [80, 80], [100, 100]]
    many = BuildConfig(balance="undersample", num_examples=10**6)
    plan = selection.plan(ROWS, many)
    alike = selection.plan(ROWS, BuildConfig(balance="exact"))
    assert (plan.class_counts() == alike.class_counts()).all()
    rarer = plan.pools[0, 1]
    after = selection.replace(plan, rarer[-7:], many)  # and no error
    assert after.class_counts()[0].tolist() == [len(rarer) - 7] * 2


def test_who_is_in_which_split_does_not_depend_on_what_is_left_out():
    whole = selection.plan(ROWS, BuildConfig(balance="none"))
    narrow = {"filter": ("Young=1",), "max_per_identity": 3, "num_examples": 500}
    part = selection.plan(ROWS, BuildConfig(**narrow))
    for split in range(3):
        assert set(part.selected(split)) <= set(whole.selected(split))


def test_images_of_each_person_are_chosen_by_hash():
    config = BuildConfig(balance="none", filter=("Young=1",), max_per_identity=4)
    plan = selection.plan(ROWS, config)
    chosen = np.concatenate([plan.selected(split) for split in range(3)])
    young = np.flatnonzero(bits(ROWS, "Young"))
    order = hashing.seeded(hashing.name_keys(ROWS.names), config.seed)
    order = hashing.seeded(order, config.seed)
    expected = []
    for person in np.unique(ROWS.identities):
        own = young[ROWS.identities[young] == person]
        expected += own[np.argsort(order[own])][:4].tolist()
    assert sorted(chosen.tolist()) == sorted(expected)


def test_the_limit_per_person_keeps_the_shares_of_a_random_split():
    """Both go by a hash: by the same one, nobody would be left for test."""
    config = BuildConfig(split="random", balance="none", max_per_identity=1)
    shares = selection.plan(ROWS, config).class_counts().sum(axis=1) / 300
    assert shares == pytest.approx(config.split_fractions, abs=0.06)


def test_a_limit_per_person_needs_identities():
    rows = dataclasses.replace(ROWS, identities=np.full(len(ROWS), -1, np.int32))
    config = BuildConfig(split="random", max_per_identity=2)
    with pytest.raises(UserError, match="identity_CelebA.txt is not in") as caught:
        selection.plan(rows, config)
    assert caught.value.exit_code == ExitCode.INPUT_DATA
    one = dataclasses.replace(rows, identities=np.where(ROWS.identities, -1, 0))
    plan = selection.plan(one, config)  # unknown people count each for themselves
    left = sum(len(pool) for pool in plan.pools.values())
    assert left == (ROWS.identities != 0).sum() + 2


def test_a_filter_that_leaves_one_class_or_nothing():
    bits = np.unpackbits(ROWS.attributes, axis=1)
    bits[:, _YOUNG] = bits[:, _MALE]
    rows = dataclasses.replace(ROWS, attributes=np.packbits(bits, axis=1))
    words = "images that --filter=Young=1 leaves is without Male.*Leave out less"
    with pytest.raises(UserError, match=words):
        selection.plan(rows, BuildConfig(filter=("Young=1",)))
    with pytest.raises(UserError, match="None of the 0 images that --filter=Young=0"):
        selection.plan(
            rows, BuildConfig(filter=("Young=0", "Male=1"), attribute="Bald")
        )


def test_leakage_is_the_share_of_test_images_of_people_in_train():
    config = BuildConfig(split="random", balance="none")
    plan = selection.plan(ROWS, config)
    train = set(ROWS.identities[plan.selected(0)].tolist())
    test = ROWS.identities[plan.selected(2)].tolist()
    expected = np.mean([person in train for person in test])
    assert selection.leakage(plan) == pytest.approx(expected) and expected > 0.5
    assert selection.leakage(selection.plan(ROWS, BuildConfig())) == 0.0
    unknown = dataclasses.replace(ROWS, identities=np.full(len(ROWS), -1, np.int32))
    assert selection.leakage(selection.plan(unknown, config)) is None


def test_a_person_in_two_splits_ends_the_build():
    plan = selection.plan(ROWS, BuildConfig())
    slots = (plan.slots[0], np.append(plan.slots[1], plan.slots[0][0]), plan.slots[2])
    wrong = dataclasses.replace(plan, slots=slots)
    with pytest.raises(UserError, match="1 people are in two splits") as caught:
        rounds.check_people(wrong, BuildConfig())
    assert caught.value.exit_code == ExitCode.INTEGRITY


def test_conditions_are_read_in_any_order_and_spelling():
    config = BuildConfig(filter=("Young=1", " Blurry = -1", "Bald=0", "Bald=-1"))
    assert list(config.required().items()) == [("Bald", 0), ("Blurry", 0), ("Young", 1)]
    same = BuildConfig(filter=("Bald=0", "Blurry=0", "Young=1"))
    assert config.recipe() == same.recipe() != BuildConfig().recipe()
