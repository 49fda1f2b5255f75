"""The report of one run: one HTML file that opens offline, and its figures as PNG.

Run as a program it renders the report of a finished run again, or that of an evaluation
of it, with pictures if it is given the dataset:
`python -m trainer.report --run_dir=RUN [--results_dir=FOLDER] [--data_dir=OUT]`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from absl import flags
from markupsafe import Markup

from schemas import celeba
from support import command, figures, files, page
from support.errors import usage_error
from support.text import PERCENT, decimal, duration, interval, percent
from trainer.evaluation import calibration
from trainer.reporting import gallery, plots, subgroup_section
from trainer.reporting.gallery import Pictures
from trainer.runs.run_reader import Run, load_run

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

#: How the splits were made -> what that means for the numbers.
SPLITS = {
    "identity": "Nobody appears in two splits: the model never saw these people.",
    "official": "The splits are CelebA's official ones.",
    "random": "Images were split at random: the same person can be in training and "
    "test, which flatters these numbers.",
}
#: Files of figures -> what each shows.
_FILES = {
    "curves.png": ("loss", "accuracy"),
    "confusion_matrix.png": ("confusion_matrix",),
    "roc.png": ("roc",),
    "precision_recall.png": ("precision_recall",),
}
_LISTED = 20


def write_report(
    run_dir: Path,
    pictures: Pictures | None = None,
    results_dir: Path | None = None,
) -> Path:
    """Writes `report.html` and the figures `_FILES` as PNG.

    Args:
      run_dir: a finished run's folder, see `load_run`.
      pictures: for the gallery, see `gradcam.report_pictures`; None leaves every face
        out.
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
        for name, members in _FILES.items():
            figure = figures.png([panels[member] for member in members])
            files.atomic_write(output_dir / name, figure)
        path = output_dir / FILE_NAME
        files.atomic_write(path, _html(run, panels, pictures))
    return path


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
        "precision_recall": plots.precision_recall(
            label, probability, run.metrics["threshold"]
        ),
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
    pictures: Pictures | None,
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "reporting/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "words": _words}
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
        gallery=gallery.groups(run.predictions, pictures),
        cells=pictures and pictures.cells,
        legend=Markup(gallery.legend()),
        subgroups=run.subgroups and Markup(subgroup_section.section(run.subgroups)),
        data_terms=celeba.DATA_TERMS,
    )
    return page.render(f"{run.model_name}: {run.positive}", body)


def _words(value: Any) -> str:
    """A value of run.json, a list's with commas."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


def _split_text(run: Run) -> str:
    """What the way of splitting means for the numbers."""
    if run.evaluation is not None:
        return " ".join(run.evaluation["notes"])
    return SPLITS.get(run.record["data"]["split"], "")


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


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Flags of `python -m trainer.report`."""

    run_dir: str | None = command.option(None, "Folder of a finished run.")
    results_dir: str | None = command.option(
        None, "Folder of an evaluation of it; left out: the run's own test."
    )
    data_dir: str | None = command.option(
        None, "Folder of the dataset, for the pictures; left out: none are shown."
    )

    def __post_init__(self):
        if not self.run_dir:
            raise usage_error("--run_dir is missing.", "Add --run_dir=runs/NAME.")


def render_again(config: ReportConfig) -> Path:
    """Writes the report from what a run or an evaluation left; returns its path.

    Raises:
      UserError: the data are not those of the results (exit 2), and see
        `write_report`; the dataset or the model is damaged (5).
    """
    run_dir = Path(config.run_dir)
    results_dir = Path(config.results_dir) if config.results_dir else None
    pictures = None
    if config.data_dir:
        run = load_run(run_dir, results_dir)
        pictures = _read_pictures(run_dir, run, config.data_dir)
    return write_report(run_dir, pictures, results_dir)


def _read_pictures(run_dir: Path, run: Run, data_dir: str) -> Pictures:
    # Here, for without pictures the report needs no TensorFlow and starts at once.
    import trainer.quiet  # noqa: F401, I001 - before anything imports TensorFlow
    from trainer.reporting import gradcam
    from trainer import models
    from trainer.loop import wakeup
    from trainer.data import open_dataset

    dataset = open_dataset(data_dir, needed=[run.split])
    digest = run.record.get("manifest_digest")
    if dataset.manifest.digest != digest:
        raise usage_error(
            f"{data_dir} is not the dataset of these results: its manifest's digest is "
            f"{dataset.manifest.digest[:12]}, not {str(digest)[:12]}.",
            "Name that dataset, or leave --data_dir out for a report without pictures.",
        )
    with wakeup.Watch():
        return gradcam.report_pictures(
            models.load(run_dir), dataset, run.split, run.predictions
        )


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(ReportConfig, values)
    command.refuse_words(command.parse(argv, values))
    print(render_again(command.from_flags(ReportConfig, values)))


if __name__ == "__main__":
    command.run(main)
