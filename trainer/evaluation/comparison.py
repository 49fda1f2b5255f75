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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from support.errors import input_error, usage_error
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
class Group:
    """Runs that differ in nothing but the seed, in the order of the seeds.

    Attributes:
      name: the model's, with what tells it from other groups.
      folders: (seeds,) where the runs are.
      runs: (seeds,) their files, predictions in the order of the image ids.
      options: every option but the seed and those that change no result.
      correct: (seeds, images) float64, 1 where the prediction is correct.
    """

    name: str
    folders: Sequence[Path]
    runs: Sequence[loading.Run]
    options: pd.Series
    correct: np.ndarray

    @property
    def seeds(self) -> list[int]:
        return [run.record["seed"] for run in self.runs]

    @property
    def accuracies(self) -> np.ndarray:
        """(seeds,) the accuracy of each run."""
        return self.correct.mean(axis=1)


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
      radius: (n, n) half-width of its simultaneous interval; NaN without one.
    """

    groups: tuple[Group, ...]
    images: int
    people: int
    accuracy: np.ndarray
    intervals: np.ndarray
    difference: np.ndarray
    radius: np.ndarray

    @property
    def bounds(self) -> np.ndarray:
        """(n, n, 2) low and high of the difference, NaN where unknown."""
        radius = self.radius
        return np.stack([self.difference - radius, self.difference + radius], axis=-1)

    @property
    def better(self) -> np.ndarray:
        """(n, n) bool: the row is significantly better than the column."""
        return self.difference > self.radius + _ROUNDING

    @property
    def ranks(self) -> np.ndarray:
        """(n, 2) int: the best and the worst rank that each group can have, 1..n."""
        better = self.better
        return np.stack([1 + better.sum(0), len(better) - better.sum(1)], axis=1)

    @property
    def best(self) -> list[str]:
        """Names of the first group and those that are exactly as accurate."""
        return self._names(np.abs(self.difference[0]) < _ROUNDING)

    @property
    def apart_from_best(self) -> list[str]:
        """Names of less accurate groups that cannot be told apart from the first."""
        return self._names(~self.better[0] & (self.difference[0] >= _ROUNDING))

    def _names(self, chosen: np.ndarray) -> list[str]:
        return [self.groups[number].name for number in np.flatnonzero(chosen)]


def load(folders: Sequence[Path]) -> list[Group]:
    """Reads run folders into groups, in the order of the first runs.

    Raises:
      UserError: a run is unfinished or damaged (exit 3); two were tested on other data
        or for another attribute, or are the same run twice (exit 2).
    """
    runs = [_load(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        _check_comparable(f"{folders[0]} and {folder}", runs[0], run)
    options = pd.DataFrame([_options(run) for run in runs]).fillna("–")
    options = options.sort_index(axis=1)
    seeds = pd.Series([run.record["seed"] for run in runs])
    for _, same in options.groupby([*options, seeds]):
        if len(same) > 1:
            one, two = same.index[:2]
            raise usage_error(
                f"{folders[one]} and {folders[two]} are one run twice: the same "
                f"options and seed {seeds[one]}.",
                "Name only one of them.",
            )
    groups = []
    for _, same in options.groupby(list(options), sort=False):
        rows = seeds[same.index].sort_values().index
        group = Group(
            name=_name(runs[rows[0]].model_name, options.loc[rows[0]], options),
            folders=[folders[row] for row in rows],
            runs=[runs[row] for row in rows],
            options=options.loc[rows[0]],
            correct=np.stack([_correct(runs[row]) for row in rows]),
        )
        groups.append(group)
    return groups


def compare(groups: Sequence[Group], draws: int = DRAWS, seed: int = 0) -> Comparison:
    """Compares groups that were tested on the same images, see the module.

    Args:
      groups: see `load`.
      draws: bootstrap draws.
      seed: of the draws.
    """
    groups = sorted(groups, key=lambda one: (-one.accuracies.mean(), one.name))
    identity = groups[0].runs[0].predictions["identity"].to_numpy(np.int64)
    person, people = bootstrap.clusters(identity)
    accuracy = np.array([one.accuracies.mean() for one in groups])
    difference = accuracy[:, None] - accuracy
    intervals = np.full((2, len(groups)), np.nan)
    radius = np.full(difference.shape, np.nan)
    if people > 1:
        correct = [one.correct for one in groups]
        drawn = draw_accuracies(correct, person, draws, seed)
        intervals = bootstrap.opened(accuracy, bootstrap.interval(drawn), people)
        radius = simultaneous_radius(accuracy, drawn)
    if people < group_rates.MIN_PEOPLE:
        # Among so few people a difference without variance is no evidence.
        radius[radius == 0] = np.nan
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
    options = pd.DataFrame([one.options for one in groups])
    if (options.groupby("regime")["weights"].nunique() == 1).all():
        options = options.drop(columns="weights")
    names = _varying(options.drop(columns=["model", "regime"]))
    return {name: options[name].unique().tolist() for name in names}


def _varying(options: pd.DataFrame) -> list[str]:
    return [name for name in options if options[name].nunique() > 1]


def _name(model: str, own: pd.Series, options: pd.DataFrame) -> str:
    """The model's name, with what tells a group from others of the same model."""
    rivals = options[options["model"] == own["model"]]
    same = rivals[rivals["regime"] == own["regime"]]
    regime = [own["regime"]] if len(same) < len(rivals) else []
    parts = [f"{name}={own[name]}" for name in _varying(same)]
    return ", ".join([model, *regime, *parts])


def _seed_weights(seeds: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, seeds): the weight of each seed in the average over the seeds drawn."""
    if seeds == 1:
        return np.ones((draws, 1))
    taken = rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=draws)
    return taken / (seeds - 1)


def _load(folder: Path) -> loading.Run:
    if (folder / RUN).is_file() and not is_finished(folder):
        raise input_error(
            f"{folder} has no finished run, or its {RUN} is damaged.",
            "Exclude it, or finish it: python -m trainer.main "
            f"--flagfile={folder / FLAGS}",
        )
    run = loading.load_run(folder)
    require(folder, run.record, _KEYS)
    predictions = run.predictions.sort_values("image_id", ignore_index=True)
    run = dataclasses.replace(run, predictions=predictions)
    accuracy = run.metrics["accuracy"]["value"]
    if predictions["image_id"].duplicated().any():
        problem = "predictions.csv has an image twice"
    elif accuracy is None or not np.isclose(_correct(run).mean(), accuracy):
        problem = "predictions.csv and metrics.json contradict each other"
    else:
        return run
    remedy = "Restore it from a copy, train it again, or exclude it."
    raise input_error(f"{folder}: {problem}.", remedy)


def _correct(run: loading.Run) -> np.ndarray:
    predicted = run.predictions["probability"] >= run.metrics["threshold"]
    return (predicted == (run.predictions["label"] == 1)).to_numpy(np.float64)


def _options(run: loading.Run) -> dict[str, str]:
    options = all_options(run.flags)
    options |= {key: str(run.record[key]) for key in _EFFECTIVE if key in run.record}
    compared = options.keys() - {"seed", *NOT_COMPARED}
    return {name: options[name] for name in compared}


def _check_comparable(names: str, first: loading.Run, other: loading.Run) -> None:
    one, two = first.record, other.record
    digests = ", ".join(run["manifest_digest"][:12] for run in (one, two))
    columns = ["image_id", "identity", "label"]
    if one["attribute"] != two["attribute"]:
        problem = f"predict other attributes: {one['attribute']}, {two['attribute']}"
    elif one["manifest_digest"] != two["manifest_digest"]:
        problem = f"were trained and tested on other data (manifests {digests})"
    elif not first.predictions[columns].equals(other.predictions[columns]):
        problem = "were tested on other images"
    else:
        return
    raise usage_error(
        f"{names} {problem}.", "Compare runs of one dataset and one attribute only."
    )
