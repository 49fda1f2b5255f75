"""Comparison of runs: which are better, by how much, and which cannot be told apart.

Runs that differ in nothing but the seed are one group. All groups are tested on the
same images, so they are compared image by image, on correct predictions averaged over
the seeds.

Intervals are over people *and* seeds. Each draw takes as many people as there are, with
replacement, the same for every group, see `bootstrap`; and from a group of S > 1
seeds it takes S - 1 with replacement. S - 1, because with so few taking S would make
the variance too small by the factor (S - 1) / S (McCarthy and Snowden, "The bootstrap
and finite population sampling", 1985; Rao and Wu, JASA 83, 1988). The interval of a
group of one seed covers the sampling of the test set, not the randomness of training.
An accuracy that is exactly 0 or 1 has the interval of `bootstrap.opened`.

Differences of all pairs have simultaneous intervals: with 95 % probability all of them
are right at once, which allows for the many comparisons. Their half-width is the
standard error of the difference over the draws times the 95 % quantile, over the draws,
of the largest deviation of any pair in its own standard errors (the single-step "max
t"; Westfall and Young, "Resampling-Based Multiple Testing", 1993; Romano and Wolf, JASA
100, 2005). Two groups whose interval contains 0, or that have none, cannot be told
apart. A group's ranks are those that its significant differences leave (Mogstad,
Romano, Shaikh and Wilhelm, "Inference for Ranks", Review of Economic Studies 91, 2024).
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from support.errors import ExitCode, UserError, usage_error
from trainer.config import NOT_COMPARED
from trainer.evaluation import bootstrap, group_rates, loading
from trainer.runs import FLAGS, RUN
from trainer.runs.folder import all_options
from trainer.runs.record import is_finished, require

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
      run: its files, predictions in the order of the image ids.
      options: every option but the seed and those that change no result.
      correct: (images,) float64, 1 where the prediction is correct.
    """

    folder: Path
    run: loading.Run
    options: dict[str, str]
    correct: np.ndarray

    @property
    def seed(self) -> int:
        return self.run.record["seed"]


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed, in the order of the seeds."""

    name: str
    candidates: tuple[Candidate, ...]

    @property
    def seeds(self) -> list[int]:
        return [candidate.seed for candidate in self.candidates]

    @property
    def accuracies(self) -> np.ndarray:
        """(seeds,) the accuracy of each run."""
        return np.array([candidate.correct.mean() for candidate in self.candidates])

    @property
    def run(self) -> loading.Run:
        """The first run, for what all of them share."""
        return self.candidates[0].run

    def mean(self, value: Callable[[loading.Run], float | None]) -> float | None:
        """Mean over the runs of a value, or None if one lacks it."""
        values = [value(one.run) for one in self.candidates]
        return None if None in values else float(np.mean(values))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Groups, the best first, and what is known of their differences.

    Attributes:
      groups: (n,) by accuracy.
      images: number of test images.
      people: number of people in them.
      accuracy: (n,) mean over the seeds.
      intervals: (n, 2) low and high, NaN with one person only.
      difference: (n, n) accuracy of the row less that of the column.
      radius: (n, n) half-width of its simultaneous interval; infinite without one.
    """

    groups: tuple[Group, ...]
    images: int
    people: int
    accuracy: np.ndarray
    intervals: np.ndarray
    difference: np.ndarray
    radius: np.ndarray

    @property
    def better(self) -> np.ndarray:
        """(n, n) bool: the row is significantly better than the column."""
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
        or for another attribute (exit 2).
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
    groups: dict[tuple, dict[int, Candidate]] = {}
    for candidate in candidates:
        key = tuple(sorted(candidate.options.items()))
        seeds = groups.setdefault(key, {})
        if candidate.seed in seeds:
            first = seeds[candidate.seed].folder
            raise usage_error(
                f"{first} and {candidate.folder} are one run twice: the same options "
                f"and seed {candidate.seed}.",
                "Name only one of them.",
            )
        seeds[candidate.seed] = candidate
    members = [
        tuple(seeds[seed] for seed in sorted(seeds)) for seeds in groups.values()
    ]
    names = _names([runs[0] for runs in members])
    return [Group(name, runs) for name, runs in zip(names, members, strict=True)]


def compare(groups: Sequence[Group], draws: int = DRAWS, seed: int = 0) -> Comparison:
    """Compares groups that were tested on the same images, see the module.

    Args:
      groups: of `group`.
      draws: bootstrap draws.
      seed: of the draws.
    """
    groups = sorted(groups, key=lambda one: (-one.accuracies.mean(), one.name))
    predictions = groups[0].run.predictions
    person, people = bootstrap.clusters(predictions["identity"].to_numpy(np.int64))
    accuracy = np.array([one.accuracies.mean() for one in groups])
    difference = accuracy[:, None] - accuracy
    intervals = np.full((2, len(groups)), np.nan)
    radius = np.full(difference.shape, np.inf)
    if people > 1:
        correct = [np.stack([run.correct for run in one.candidates]) for one in groups]
        drawn = draw_accuracies(correct, person, draws, seed)
        intervals = bootstrap.opened(accuracy, bootstrap.interval(drawn), people)
        radius = simultaneous_radius(accuracy, drawn)
    if people < group_rates.MIN_PEOPLE:
        # Among so few people a difference without variance is no evidence.
        radius[radius == 0] = np.inf
    np.fill_diagonal(radius, 0)
    return Comparison(
        groups=tuple(groups),
        images=len(person),
        people=people,
        accuracy=accuracy,
        intervals=intervals.T,
        difference=difference,
        radius=radius,
    )


def draw_accuracies(
    correct: Sequence[np.ndarray], person: np.ndarray, draws: int, seed: int
) -> np.ndarray:
    """The accuracy of every group in every draw of people and seeds.

    Args:
      correct: per group (seeds, images) 1 where correct, else 0.
      person: (images,) numbers 0..people-1.
      draws: number of draws.
      seed: of the draws.

    Returns:
      (draws, groups) float64, 0..1.
    """
    columns = [*np.concatenate(correct), np.ones(len(person))]
    sums = np.stack([np.bincount(person, column) for column in columns], axis=1)
    drawn = bootstrap.resample(sums, draws, seed)
    accuracy = drawn[:, :-1] / drawn[:, -1:]
    rng = np.random.default_rng([seed, 1])
    ends = np.cumsum([len(runs) for runs in correct])
    return np.stack(
        [
            np.sum(part * _seed_weights(part.shape[1], draws, rng), axis=1)
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
    difference = drawn[:, :, None] - drawn[:, None]
    error = difference.std(axis=0, ddof=1)
    deviation = np.abs(difference - (accuracy[:, None] - accuracy))
    # Rounding alone gives equal predictions a tiny error, which nothing may exceed.
    varies = error > 1e-12
    studentized = np.divide(
        deviation, error, where=varies, out=np.zeros_like(deviation)
    )
    critical = np.quantile(studentized.max(axis=(1, 2)), bootstrap.LEVEL)
    return np.where(varies, critical * error, 0)


def differing_options(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Options other than model and regime that groups differ in -> their values.

    Weights that only follow the regime are excluded.
    """
    options = _option_table([one.candidates[0] for one in groups])
    if (options.groupby("regime")["weights"].nunique() == 1).all():
        options = options.drop(columns="weights")
    options = options.drop(columns=["model", "regime"])
    return {
        name: list(dict.fromkeys(values))
        for name, values in options.items()
        if values.nunique() > 1
    }


def _option_table(candidates: Iterable[Candidate]) -> pd.DataFrame:
    """One row per candidate, one column per option, by name."""
    table = pd.DataFrame([candidate.options for candidate in candidates])
    return table.fillna("–").sort_index(axis=1)


def _names(candidates: Sequence[Candidate]) -> list[str]:
    """The model's name, with what tells it from other groups of the same model."""
    options, names = _option_table(candidates), []
    for candidate, (_, row) in zip(candidates, options.iterrows(), strict=True):
        rivals = options[options["model"] == row["model"]]
        same = rivals[rivals["regime"] == row["regime"]]
        parts = [candidate.run.model_name]
        if len(same) < len(rivals):
            parts.append(row["regime"])
        parts += [f"{name}={row[name]}" for name in same if same[name].nunique() > 1]
        names.append(", ".join(parts))
    return names


def _seed_weights(seeds: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, seeds): the weight of each seed in the average over the seeds drawn."""
    if seeds == 1:
        return np.ones((draws, 1))
    taken = rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=draws)
    return taken / (seeds - 1)


def _load(folder: Path) -> Candidate:
    if (folder / RUN).is_file() and not is_finished(folder):
        raise UserError(
            f"{folder} has no finished run, or its {RUN} is damaged.",
            "Exclude it, or finish it: python -m trainer.main "
            f"--flagfile={folder / FLAGS}",
            ExitCode.INPUT_DATA,
        )
    run = loading.load_run(folder)
    require(folder, run.record, _KEYS)
    predictions = run.predictions.sort_values("image_id", ignore_index=True)
    if predictions.empty or predictions["image_id"].duplicated().any():
        raise _damaged(folder, "predictions.csv has no image, or one of them twice")
    predicted = predictions["probability"] >= run.metrics["threshold"]
    correct = (predicted == (predictions["label"] == 1)).to_numpy(np.float64)
    accuracy = run.metrics["accuracy"]["value"]
    if accuracy is None or not np.isclose(correct.mean(), accuracy):
        raise _damaged(folder, "predictions.csv and metrics.json contradict each other")
    options = all_options(run.flags)
    options |= {key: str(run.record[key]) for key in _EFFECTIVE if key in run.record}
    for name in ("seed", *NOT_COMPARED):
        options.pop(name, None)
    run = dataclasses.replace(run, predictions=predictions)
    return Candidate(folder, run, options, correct)


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
        "Restore it from a copy, train it again, or exclude it.",
        ExitCode.INPUT_DATA,
    )
