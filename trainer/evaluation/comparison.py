"""Which of several runs are better, by how much, and which cannot be told apart.

Runs that differ in nothing but the seed are one group. All groups are tested on the
same images, so they are compared image by image, on hits averaged over the seeds.

Intervals are over people *and* seeds. Each draw takes as many people as there are, with
replacement, the same for every group, see `metrics`; and from a group of S > 1
seeds it takes S - 1 with replacement. S - 1, because with so few taking S would make
the variance too small by the factor (S - 1) / S (McCarthy and Snowden, "The bootstrap
and finite population sampling", 1985; Rao and Wu, JASA 83, 1988). A group of one seed
has the luck of the test set in its interval, not that of training. An accuracy that is
exactly 0 or 1 has the interval of `evaluation.metrics.opened`.

Differences of all pairs have simultaneous intervals: with 95 % probability all of them
hold at once, which allows for the many comparisons. Their half-width is the standard
error of the difference over the draws times the 95 % quantile, over the draws, of the
largest deviation of any pair in its own standard errors (the single-step "max t";
Westfall and Young, "Resampling-Based Multiple Testing", 1993; Romano and Wolf, JASA
100, 2005). A difference that is the same in every draw of few people has no interval:
they may only happen to agree. Two groups whose interval holds 0, or that have none,
cannot be told apart. A group's ranks are those that its significant differences leave
(Mogstad, Romano, Shaikh and Wilhelm, "Inference for Ranks", Review of Economic Studies
91, 2024).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from support.errors import ExitCode, UserError, usage_error
from trainer.config import NOT_COMPARED
from trainer.evaluation import bootstrap, group_rates
from trainer.runs import run_reader, run_record

DRAWS = 1000

#: Accuracies that differ by less are equal. Averages over images and seeds are rounded
#: by about 1e-16; half an image of a million is still 5e-7.
_ROUNDING = 1e-9

#: What `auto` options became, and the machine: part of what a run is.
_EFFECTIVE = ("precision", "xla", "replicas", "device_name")
_KEYS = ("status", "seed", "regime", "manifest_digest")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A finished run that is to be compared.

    Attributes:
      folder: where it is.
      run: what is in it, predictions in the order of the image ids.
      options: every option but the seed and those that change no result.
      hits: (images,) float64, 1 where the prediction is right.
    """

    folder: Path
    run: run_reader.Run
    options: dict[str, str]
    hits: np.ndarray

    @property
    def seed(self) -> int:
        return self.run.record["seed"]


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed, in the order of the seeds."""

    name: str
    candidates: tuple[Candidate, ...]

    @property
    def model_name(self) -> str:
        return self.candidates[0].run.model_name

    @property
    def regime(self) -> str:
        return self.candidates[0].run.record["regime"]

    @property
    def options(self) -> dict[str, str]:
        return self.candidates[0].options

    @property
    def seeds(self) -> list[int]:
        return [candidate.seed for candidate in self.candidates]

    @property
    def accuracies(self) -> np.ndarray:
        """(seeds,) the accuracy of each run."""
        return np.array([candidate.hits.mean() for candidate in self.candidates])

    def mean(self, key: str) -> float | None:
        """Mean over the runs of a number in run.json, or None if one lacks it."""
        return _mean([one.run.record.get(key) for one in self.candidates])

    def mean_metric(self, name: str) -> float | None:
        """Mean over the runs of a metric, or None if one leaves it undefined."""
        return _mean([one.run.metrics[name]["value"] for one in self.candidates])

    @property
    def inference_milliseconds(self) -> float | None:
        """Per image, in the batches of the test split."""
        rate = "inference_images_per_second"
        rates = [one.run.record.get(rate) for one in self.candidates]
        return _mean([None if not value else 1000 / value for value in rates])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Groups, the best first, and what is known of their differences.

    Attributes:
      groups: (n,) by accuracy.
      images: number of test images.
      people: number of people in them.
      accuracy: (n,) mean over the seeds.
      intervals: per group [low, high], or None with one person only.
      difference: (n, n) accuracy of the row less that of the column.
      radius: (n, n) half-width of its simultaneous interval; infinite without one.
    """

    groups: tuple[Group, ...]
    images: int
    people: int
    accuracy: np.ndarray
    intervals: tuple[list[float] | None, ...]
    difference: np.ndarray
    radius: np.ndarray

    @property
    def better(self) -> np.ndarray:
        """(n, n) bool: the row is better than the column beyond doubt."""
        return self.difference > self.radius + _ROUNDING

    @property
    def tied(self) -> list[int]:
        """The groups that are exactly as accurate as the first."""
        equal = np.abs(self.difference[0]) < _ROUNDING
        return [int(number) for number in np.flatnonzero(equal) if number]

    def ranks(self, number: int) -> tuple[int, int]:
        """The best and the worst rank that a group can have, 1..n."""
        above = int(self.better[:, number].sum())
        below = int(self.better[number].sum())
        return 1 + above, len(self.groups) - below

    def bounds(self, row: int, column: int) -> tuple[float, float] | None:
        """The simultaneous interval of a difference."""
        radius = self.radius[row, column]
        if not np.isfinite(radius):
            return None
        middle = self.difference[row, column]
        return float(middle - radius), float(middle + radius)


def load(folders: Sequence[Path]) -> list[Candidate]:
    """Reads run folders and refuses what cannot be compared.

    Raises:
      UserError: a run is unfinished or damaged (exit 3); two were tested on other data
        or for another attribute, or are the same run (exit 2).
    """
    candidates = [_load(folder) for folder in folders]
    for candidate in candidates[1:]:
        _check_comparable(candidates[0], candidate)
    return candidates


def group(candidates: Sequence[Candidate]) -> list[Group]:
    """Groups runs that differ in nothing but the seed, in the order of the first runs.

    Raises:
      UserError: two runs of a group have one seed: the same run twice (exit 2).
    """
    found: dict[tuple, dict[int, Candidate]] = {}
    for candidate in candidates:
        key = tuple(sorted(candidate.options.items()))
        seeds = found.setdefault(key, {})
        if candidate.seed in seeds:
            first = seeds[candidate.seed].folder
            raise usage_error(
                f"{first} and {candidate.folder} are one run twice: the same options "
                f"and seed {candidate.seed}.",
                "Leave one of them out.",
            )
        seeds[candidate.seed] = candidate
    members = [tuple(seeds[seed] for seed in sorted(seeds)) for seeds in found.values()]
    return [
        Group(name, runs) for name, runs in zip(_names(members), members, strict=True)
    ]


def compare(groups: Sequence[Group], draws: int = DRAWS, seed: int = 0) -> Comparison:
    """Compares groups that were tested on the same images, see the module.

    Args:
      groups: of `group`.
      draws: bootstrap draws.
      seed: of the draws.
    """
    groups = sorted(groups, key=lambda one: (-one.accuracies.mean(), one.name))
    predictions = groups[0].candidates[0].run.predictions
    person, people = bootstrap.clusters(predictions["identity"].to_numpy(np.int64))
    accuracy = np.array([one.accuracies.mean() for one in groups])
    difference = accuracy[:, None] - accuracy
    intervals = np.full((2, len(groups)), np.nan)
    radius = np.full(difference.shape, np.inf)
    np.fill_diagonal(radius, 0)
    if people > 1:
        hits = [[run.hits for run in one.candidates] for one in groups]
        drawn = draw_accuracies([np.stack(runs) for runs in hits], person, draws, seed)
        intervals = bootstrap.opened(accuracy, bootstrap.interval(drawn), people)
        radius = simultaneous_radius(accuracy, drawn)
    if people < group_rates.MIN_PEOPLE:
        # That so few people agree in every draw makes nothing certain of others.
        radius[radius == 0] = np.inf
        np.fill_diagonal(radius, 0)
    return Comparison(
        groups=tuple(groups),
        images=len(person),
        people=people,
        accuracy=accuracy,
        intervals=tuple(
            None if np.isnan(low) else [float(low), float(high)]
            for low, high in intervals.T
        ),
        difference=difference,
        radius=radius,
    )


def draw_accuracies(
    hits: Sequence[np.ndarray], person: np.ndarray, draws: int, seed: int
) -> np.ndarray:
    """The accuracy of every group in every draw of people and seeds.

    Args:
      hits: per group (seeds, images) 0 or 1.
      person: (images,) numbers 0..people-1.
      draws: number of draws.
      seed: of the draws.

    Returns:
      (draws, groups) float64, 0..1.
    """
    columns = [*np.concatenate(hits), np.ones(len(person))]
    sums = np.stack([np.bincount(person, column) for column in columns], axis=1)
    drawn = bootstrap.resample(sums, draws, seed)
    accuracy = drawn[:, :-1] / drawn[:, -1:]
    rng = np.random.default_rng([seed, 1])
    ends = np.cumsum([len(runs) for runs in hits])
    return np.stack(
        [
            np.sum(part * _seed_shares(part.shape[1], draws, rng), axis=1)
            for part in np.split(accuracy, ends[:-1], axis=1)
        ],
        axis=1,
    )


def simultaneous_radius(accuracy: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Half-widths of the simultaneous intervals of all differences.

    Args:
      accuracy: (groups,) as measured.
      drawn: (draws, groups), see `draw_accuracies`.

    Returns:
      (groups, groups) float64; 0 where a difference is the same in every draw.
    """
    first, second = np.triu_indices(len(accuracy), 1)
    radius = np.zeros((len(accuracy), len(accuracy)))
    if not len(first):
        return radius
    difference = drawn[:, first] - drawn[:, second]
    error = difference.std(axis=0, ddof=1)
    deviation = np.abs(difference - (accuracy[first] - accuracy[second]))
    # Rounding alone gives equal predictions a tiny error, which nothing may exceed.
    varies = error > 1e-12
    studentized = np.divide(
        deviation, error, where=varies, out=np.zeros_like(deviation)
    )
    critical = np.quantile(studentized.max(axis=1), bootstrap.LEVEL)
    radius[first, second] = radius[second, first] = np.where(
        varies, critical * error, 0
    )
    return radius


def differing_options(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Options beside model and regime that groups differ in -> value of each group.

    Weights that only follow the regime are left out.
    """
    names = sorted(set().union(*(one.options for one in groups)) - {"model", "regime"})
    values = {name: [one.options.get(name, "–") for one in groups] for name in names}
    regimes = [one.regime for one in groups]
    if len(set(zip(regimes, values["weights"], strict=True))) == len(set(regimes)):
        del values["weights"]
    return {name: found for name, found in values.items() if len(set(found)) > 1}


def _seed_shares(seeds: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, seeds): the share of each seed in the average over the seeds drawn."""
    if seeds == 1:
        return np.ones((draws, 1))
    taken = rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=draws)
    return taken / (seeds - 1)


def _load(folder: Path) -> Candidate:
    if (folder / run_record.RUN).is_file() and not run_record.is_finished(folder):
        raise UserError(
            f"{folder} holds no finished run, or its {run_record.RUN} is damaged.",
            "Leave it out, or finish it: python -m trainer.main "
            f"--flagfile={folder / run_record.FLAGS}",
            ExitCode.INPUT_DATA,
        )
    run = run_reader.load_run(folder)
    missing = [key for key in _KEYS if key not in run.record]
    if missing:
        raise _damaged(folder, f"{run_record.RUN} has no {missing[0]!r}")
    predictions = run.predictions.sort_values("image_id", ignore_index=True)
    if predictions.empty or predictions["image_id"].duplicated().any():
        raise _damaged(folder, "predictions.csv has no image, or one of them twice")
    if not predictions["label"].isin((0, 1)).all():
        raise _damaged(folder, "predictions.csv has a label that is neither 0 nor 1")
    called = predictions["probability"] >= run.metrics["threshold"]
    hits = (called == (predictions["label"] == 1)).to_numpy(np.float64)
    accuracy = run.metrics["accuracy"]["value"]
    if accuracy is None or not np.isclose(hits.mean(), accuracy):
        raise _damaged(folder, "predictions.csv and metrics.json contradict each other")
    run = dataclasses.replace(run, predictions=predictions)
    return Candidate(folder, run, _options(run), hits)


def _options(run: run_reader.Run) -> dict[str, str]:
    options = run_record.all_options(run.flags)
    options |= {key: str(run.record[key]) for key in _EFFECTIVE if key in run.record}
    left_out = {"seed", *NOT_COMPARED}
    return {name: value for name, value in options.items() if name not in left_out}


def _check_comparable(first: Candidate, other: Candidate) -> None:
    remedy = "Compare runs of one dataset and one attribute only."
    names = f"{first.folder} and {other.folder}"
    one, two = first.run.record, other.run.record
    if one["attribute"] != two["attribute"]:
        raise usage_error(
            f"{names} predict other attributes: {one['attribute']}, "
            f"{two['attribute']}.",
            remedy,
        )
    if one["manifest_digest"] != two["manifest_digest"]:
        raise usage_error(
            f"{names} were trained and tested on other data (manifests "
            f"{one['manifest_digest'][:12]}, {two['manifest_digest'][:12]}).",
            remedy,
        )
    columns = ["image_id", "identity", "label"]
    if not first.run.predictions[columns].equals(other.run.predictions[columns]):
        raise usage_error(f"{names} were tested on other images.", remedy)


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(
        f"{folder}: {what}.",
        "Restore it from a copy, train it again, or leave it out.",
        ExitCode.INPUT_DATA,
    )


def _names(groups: Sequence[tuple[Candidate, ...]]) -> list[str]:
    """The model's name, with what tells it from other groups of the same model."""
    names = []
    for members in groups:
        name, options = members[0].run.model_name, members[0].options
        rivals = [
            other[0].options for other in groups if other[0].run.model_name == name
        ]
        regime = options.get("regime")
        same = [rival for rival in rivals if rival.get("regime") == regime]
        parts = [name] if len(same) == len(rivals) else [name, str(regime)]
        parts += [
            f"{option}={options.get(option, '–')}"
            for option in sorted(set().union(*same))
            if len({rival.get(option) for rival in same}) > 1
        ]
        names.append(", ".join(parts))
    return names


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))
