"""The report of one run: one HTML file that opens offline, and its figures as PNG.

Run as a program it renders the report of a finished run again, without pictures:
`python -m trainer.report --run_dir=RUN`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from absl import flags
from markupsafe import Markup

from schemas import celeba
from support import command, figures, files, page
from support.errors import usage_error
from trainer import calibration, plots, subgroup_section
from trainer.run_reader import Run, load_run
from trainer.wording import PERCENT, decimal, duration, interval, percent

FILE_NAME = "report.html"

#: Key of `metrics.json` -> (name, what it says, as per cent).
METRICS = {
    "accuracy": ("Accuracy", "images called right", True),
    "balanced_accuracy": (
        "Balanced accuracy",
        "images called right, mean over the two labels",
        True,
    ),
    "precision": (
        "Precision",
        "of the images called {positive}, those labeled so",
        True,
    ),
    "recall": ("Recall", "of the images labeled {positive}, those called so", True),
    "f1": ("F1", "harmonic mean of precision and recall", True),
    "auc": (
        "ROC AUC",
        "chance that an image labeled {positive} scores above one that is not",
        False,
    ),
    "average_precision": (
        "Average precision",
        "precision averaged over all thresholds",
        False,
    ),
    "log_loss": (
        "Log loss",
        "penalty for sure mistakes; 0 is best, a coin toss has 0.693",
        False,
    ),
    "brier": (
        "Brier score",
        "mean squared error of the probability; 0 is best, a coin toss has 0.25",
        False,
    ),
    "ece": (
        "Calibration error",
        "ECE, 15 bins: mean distance between how sure it is and how often it is right",
        True,
    ),
}
#: The same of the other label, from `per_class`; they follow "f1".
_OF_OTHERS = {
    "precision": (
        "Precision, not {positive}",
        "of the images not called {positive}, those labeled so",
    ),
    "recall": (
        "Recall, not {positive}",
        "of the images not labeled {positive}, those called so",
    ),
    "f1": ("F1, not {positive}", "harmonic mean of these two"),
}

_SPLITS = {
    "identity": "Nobody appears in two splits: the model never saw these people.",
    "official": "The splits are CelebA's official ones.",
    "random": "Images were split at random: the same person can be in training and "
    "test, which flatters these numbers.",
}
_GALLERY_SIZE = 8
_LISTED = 20


def write_report(
    run_dir: Path,
    pictures: Mapping[str, bytes] | None = None,
    results_dir: Path | None = None,
) -> Path:
    """Writes `report.html`, `curves.png`, `confusion_matrix.png` and `roc.png`.

    Args:
      run_dir: a finished run's folder, see `load_run`.
      pictures: JPEG files by image id, for the gallery (see `gallery_ids`); None
        leaves every face out.
      results_dir: where metrics.json and predictions.csv are and the report goes, if
        elsewhere.

    Returns:
      The path of the HTML file.

    Raises:
      UserError: exit 3, see `load_run`; exit 4, the folder cannot be written.
    """
    run = load_run(run_dir, results_dir)
    output_dir = results_dir or run_dir
    panels = _panels(run)
    with files.output_errors(output_dir):
        for name, members in {
            "curves.png": ("loss", "accuracy"),
            "confusion_matrix.png": ("confusion_matrix",),
            "roc.png": ("roc",),
        }.items():
            figure = figures.png([panels[member] for member in members])
            files.atomic_write(output_dir / name, figure)
        path = output_dir / FILE_NAME
        files.atomic_write(path, _html(run, panels, pictures))
    return path


def gallery(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Chooses the rows worth looking at; ties go by image id.

    Args:
      predictions: columns `image_id`, `label` (0 or 1), `probability` (of label 1).

    Returns:
      `surest_right` (half of each label), `surest_wrong` and `most_uncertain`, each
      with at most eight rows, the most telling first.
    """
    surest = calibration.by_confidence(predictions)
    hit = (surest["probability"] >= 0.5) == (surest["label"] == 1)
    right = surest[hit]
    halves = [
        right[right["label"] == label].head(_GALLERY_SIZE // 2) for label in (1, 0)
    ]
    return {
        "surest_right": pd.concat(halves),
        "surest_wrong": surest[~hit].head(_GALLERY_SIZE),
        "most_uncertain": calibration.most_uncertain(predictions, _GALLERY_SIZE),
    }


def gallery_ids(predictions: pd.DataFrame) -> list[str]:
    """The image ids that `write_report` shows when it is given their pictures."""
    chosen = pd.concat(gallery(predictions).values())
    return chosen["image_id"].drop_duplicates().tolist()


def summary(run: Run) -> list[str]:
    """The result in sentences."""
    n, people = run.metrics["n"], run.metrics["people"]
    (tn, fp), (fn, tp) = run.metrics["confusion_matrix"]
    accuracy = run.metrics["accuracy"]
    right = percent(accuracy["value"])
    sentence = f"{run.model_name} calls {right} of {n:,} {run.split} images of "
    sentence += f"{people:,} people right"
    if fp + fn == 0:
        # Resampling cannot see errors that did not occur; the rule of three can
        # (Hanley and Lippman-Hand, JAMA 1983).
        bound = percent(min(1, 3 / people))
        sentences = [f"{sentence}: no mistake. An error rate of up to about {bound} "]
        sentences[0] += "still cannot be ruled out with so many people."
    elif accuracy["interval"]:
        low_high = interval(accuracy["interval"], percent)
        sentences = [
            f"{sentence} (95{PERCENT} interval {low_high}, resampling people)."
        ]
    else:
        sentences = [f"{sentence}; too few people for an interval."]
    more_frequent = max(tn + fp, fn + tp) / n
    sentences.append(
        f"Always giving the more frequent label would be right for "
        f"{percent(more_frequent)}."
    )
    sentences.append(
        f"It misses {fn:,} of {fn + tp:,} images labeled {run.positive} and calls "
        f"{fp:,} of the {tn + fp:,} others {run.positive}."
    )
    return sentences


def calibration_words(run: Run) -> list[str]:
    """Temperature and abstention in sentences; none for runs made before them."""
    if "calibration" not in run.metrics:
        return []
    facts, band = run.metrics["calibration"], run.metrics["abstention"]
    before, after = facts["uncalibrated"]["log_loss"], run.metrics["log_loss"]["value"]
    sentences = [
        f"Its logits are divided by a temperature of {facts['temperature']:.2f}, "
        f"fitted on the validation images of the run: the log loss of these "
        f"{run.split} images is {decimal(after)} with it and {decimal(before)} without."
    ]
    low, high = percent(0.5 - band["abstain"]), percent(0.5 + band["abstain"])
    sentence = f"If it may leave images between {low} and {high} undecided"
    if band["target_error"] is not None:
        sentence += (
            f" (the smallest band with at most {percent(band['target_error'])} "
            "mistakes on the validation images)"
        )
    coverage, error = band["coverage"], band["error"]
    if not band["decided"]:
        return [*sentences, f"{sentence}, it decides none."]
    return [
        *sentences,
        f"{sentence}, it decides {percent(coverage['value'])} "
        f"({interval(coverage['interval'], percent)}) of them, "
        f"{percent(error['value'])} ({interval(error['interval'], percent)}) of these "
        "wrongly.",
    ]


def _panels(run: Run) -> dict[str, figures.Panel]:
    best = run.record["best_epoch"]
    label = run.predictions["label"].to_numpy()
    probability = run.predictions["probability"].to_numpy()
    names = (f"not {run.positive}", run.positive)
    return {
        "loss": plots.loss(run.history, best),
        "accuracy": plots.accuracy(run.history, best),
        "confusion_matrix": plots.confusion_matrix(
            run.metrics["confusion_matrix"], names
        ),
        "roc": plots.roc(label, probability, run.metrics["threshold"]),
        "reliability": plots.reliability(label, probability),
        "probabilities": plots.probabilities(label, probability, names),
        "coverage": plots.coverage(
            calibration.coverage_curve(label, probability),
            run.metrics.get("abstention"),
        ),
    }


def _html(
    run: Run,
    panels: Mapping[str, figures.Panel],
    pictures: Mapping[str, bytes] | None,
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration}
    body = environment.get_template(FILE_NAME).render(
        run=run.record,
        metrics=run.metrics,
        flags=run.flags,
        model=run.model_name,
        positive=run.positive,
        summary=summary(run),
        rows=metric_rows(run),
        best=run.history[run.history["epoch"] == run.record["best_epoch"]].iloc[0],
        charts={
            name: Markup(figures.svg(panel, name)) for name, panel in panels.items()
        },
        calibration=calibration_words(run),
        split=run.split,
        evaluation=run.evaluation,
        split_text=_split_text(run),
        doubtful=_doubtful(run),
        gallery=_gallery_pictures(run, pictures),
        subgroups=run.subgroups and Markup(subgroup_section.section(run.subgroups)),
        data_terms=celeba.DATA_TERMS,
    )
    return page.render(f"{run.model_name}: {run.positive}", body)


def _split_text(run: Run) -> str:
    """What the way of splitting means for the numbers."""
    if run.evaluation is not None:
        return " ".join(run.evaluation["notes"])
    return _SPLITS.get(run.record["data"]["split"], "")


def metric_rows(run: Run) -> list[dict[str, str]]:
    """Name, meaning, value and interval of every metric that there is."""
    rows = []
    for key, (name, meaning, as_percent) in METRICS.items():
        # Runs made by earlier versions lack the newer metrics.
        if key in run.metrics:
            rows.append(_row(run, name, meaning, run.metrics[key], as_percent))
        if key == "f1" and "per_class" in run.metrics:
            others = run.metrics["per_class"][0]
            rows += [
                _row(run, name, meaning, others[other], True)
                for other, (name, meaning) in _OF_OTHERS.items()
            ]
    return rows


def _row(
    run: Run, name: str, meaning: str, metric: Mapping[str, Any], as_percent: bool
) -> dict[str, str]:
    formatter = percent if as_percent else decimal
    return {
        "name": name.format(positive=run.positive),
        "meaning": meaning.format(positive=run.positive),
        "value": formatter(metric["value"]),
        "interval": interval(metric["interval"], formatter),
    }


def _doubtful(run: Run) -> list[dict[str, Any]]:
    """The two lists of images to look at again: heading, how many, their first rows."""
    errors = calibration.likely_label_errors(run.predictions)
    unsure = calibration.most_uncertain(run.predictions, _LISTED)
    return [
        {
            "heading": heading,
            "count": len(rows),
            "rows": list(rows.head(_LISTED).itertuples()),
        }
        for heading, rows in (
            ("Likely label errors", errors),
            ("Most uncertain images", unsure),
        )
    ]


def _gallery_pictures(
    run: Run, pictures: Mapping[str, bytes] | None
) -> dict[str, list[dict[str, Any]]]:
    """Per group the pictures at hand, as `data:` URIs with their prediction."""
    if not pictures:
        return {}
    return {
        group: [
            {
                "image_id": row.image_id,
                "source": page.data_uri("image/jpeg", pictures[row.image_id]),
                "probability": row.probability,
                "label": row.label,
            }
            for row in rows.itertuples()
            if row.image_id in pictures
        ]
        for group, rows in gallery(run.predictions).items()
    }


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Flags of `python -m trainer.report`."""

    run_dir: str | None = command.option(None, "Folder of a finished run.")

    def __post_init__(self):
        if not self.run_dir:
            raise usage_error("--run_dir is missing.", "Add --run_dir=runs/NAME.")


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(ReportConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(ReportConfig, values)
    print(write_report(Path(config.run_dir)))


if __name__ == "__main__":
    command.run(main)
