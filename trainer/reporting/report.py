"""The report of one run: one HTML file that opens offline, and its figures as PNG."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from support import figures, files
from support.text import PERCENT, decimal, estimate, interval, percent
from trainer.evaluation import calibration, metrics
from trainer.evaluation.loading import Run, load_run
from trainer.reporting import gallery, plots, subgroup_section, template
from trainer.reporting.gallery import Images

FILE_NAME = "report.html"

#: Key of `metrics.json` -> (name, meaning, formatter).
METRICS = {
    "accuracy": ("Accuracy", "images classified correctly", percent),
    "balanced_accuracy": ("Balanced accuracy", "mean recall of both labels", percent),
    "precision": ("Precision", "correct among images classified as {name}", percent),
    "recall": ("Recall", "correct among images labeled {name}", percent),
    "f1": ("F1", "harmonic mean of precision and recall", percent),
    "auc": ("ROC AUC", "chance that {name} scores above not {name}", decimal),
    "average_precision": ("Average precision", "mean over all thresholds", decimal),
    "log_loss": ("Log loss", "0 is best, a coin toss has 0.693", decimal),
    "brier": ("Brier score", "mean squared error; a coin toss has 0.25", decimal),
    "ece": ("Calibration error", "mean |confidence − accuracy| of 15 bins", percent),
}

#: How the splits were made -> the consequence for the numbers.
SPLITS = {
    "identity": "Nobody appears in two splits: the model never saw these people.",
    "official": "The splits are CelebA's official ones.",
    "random": "Images were split at random: the same person can be in training and "
    "test, which flatters these numbers.",
}
#: PNG file -> its figures.
_FILES = {
    "curves.png": ("loss", "accuracy"),
    "confusion_matrix.png": ("confusion_matrix",),
    "roc.png": ("roc",),
    "precision_recall.png": ("precision_recall",),
}


def write_report(
    run_dir: Path, images: Images | None = None, results_dir: Path | None = None
) -> Path:
    """Writes `report.html` and the figures `_FILES` as PNG.

    Args:
      run_dir: directory of a finished run, see `load_run`.
      images: for the gallery, see `gradcam.report_images`; None shows no face.
      results_dir: where metrics.json and predictions.csv are and the report goes, if
        elsewhere.

    Returns:
      The path of the HTML file.

    Raises:
      UserError: exit 3, see `load_run`; exit 4, the directory cannot be written.
    """
    run = load_run(run_dir, results_dir)
    output_dir = results_dir or run_dir
    panels = _panels(run)
    with files.output_errors(output_dir):
        for name, members in _FILES.items():
            figure = figures.png([panels[member] for member in members])
            files.atomic_write(output_dir / name, figure)
        path = output_dir / FILE_NAME
        files.atomic_write(path, _html(run, panels, images))
    return path


def summary(run: Run) -> list[str]:
    """The result in sentences."""
    n, people = run.metrics["n"], run.metrics["people"]
    (tn, fp), (fn, tp) = run.metrics["confusion_matrix"]
    accuracy = run.metrics["accuracy"]
    value = percent(accuracy["value"])
    correct = f"{run.model_name} classifies {value} of {n:,} {run.split} images of "
    correct += f"{people:,} people correctly"
    if accuracy["interval"]:
        low_high = interval(accuracy["interval"], percent)
        correct += f" (95{PERCENT} interval {low_high}, resampling people)."
    else:
        correct += "; too few people for an interval."
    majority = percent(max(tn + fp, fn + tp) / n)
    return [
        correct,
        f"Always giving the more frequent label would be correct for {majority}.",
        f"It misses {fn:,} of {fn + tp:,} images labeled {run.positive} and classifies "
        f"{fp:,} of the {tn + fp:,} others as {run.positive}.",
    ]


def calibration_sentences(run: Run) -> list[str]:
    """Temperature and abstention in sentences; none for runs made before them."""
    if "calibration" not in run.metrics:
        return []
    facts, abstention = run.metrics["calibration"], run.metrics["abstention"]
    before, after = facts["uncalibrated"]["log_loss"], run.metrics["log_loss"]["value"]
    low, high = (percent(0.5 + sign * abstention["abstain"]) for sign in (-1, 1))
    condition = f"If it abstains between {low} and {high}"
    if abstention["target_error"] is not None:
        target = percent(abstention["target_error"])
        condition += f" (the smallest band with at most {target} mistakes on the "
        condition += "validation images)"
    coverage, error = (
        estimate(metric["value"], metric["interval"], percent)
        for metric in (abstention["coverage"], abstention["error"])
    )
    result = f"its coverage is {coverage}, with {error} mistakes."
    return [
        f"Its logits are divided by a temperature of {facts['temperature']:.2f}, "
        "fitted on the validation images of the run: the log loss of these "
        f"{run.split} images is {decimal(after)} with it, {decimal(before)} without.",
        f"{condition}, {result if abstention['decided'] else 'it covers none.'}",
    ]


def metric_rows(run: Run) -> list[dict[str, str]]:
    """Name, meaning, value and interval of every metric that there is."""
    # Runs made by earlier versions lack the newer metrics.
    known = [key for key in METRICS if key in run.metrics]
    rows = [_row(run.positive, key, run.metrics[key]) for key in known]
    if "per_class" in run.metrics:
        name, values = f"not {run.positive}", run.metrics["per_class"][0]
        rows += [_row(name, key, values[key], f", {name}") for key in metrics.PER_CLASS]
    return rows


def _row(
    name: str, key: str, metric: Mapping[str, Any], suffix: str = ""
) -> dict[str, str]:
    title, meaning, formatter = METRICS[key]
    return {
        "name": f"{title}{suffix}",
        "meaning": meaning.format(name=name),
        "value": formatter(metric["value"]),
        "interval": interval(metric["interval"], formatter),
    }


def _panels(run: Run) -> dict[str, figures.Panel]:
    best, threshold = run.record["best_epoch"], run.metrics["threshold"]
    scored = [run.predictions[name].to_numpy() for name in ("label", "probability")]
    names = (f"not {run.positive}", run.positive)
    matrix, curve = run.metrics["confusion_matrix"], calibration.coverage_curve(*scored)
    drawn = {
        "loss": (plots.loss, run.history, best),
        "accuracy": (plots.accuracy, run.history, best),
        "confusion_matrix": (plots.confusion_matrix, matrix, names),
        "roc": (plots.roc, *scored, threshold),
        "precision_recall": (plots.precision_recall, *scored, threshold),
        "reliability": (plots.reliability, *scored),
        "probabilities": (plots.probabilities, *scored, names),
        "coverage": (plots.coverage, curve, run.metrics.get("abstention")),
    }
    return {name: functools.partial(*call) for name, call in drawn.items()}


def _html(run: Run, panels: Mapping[str, figures.Panel], images: Images | None) -> str:
    charts = {name: Markup(figures.svg(panel, name)) for name, panel in panels.items()}
    notes = [SPLITS.get(run.record["data"]["split"], "")]
    if run.evaluation is not None:
        notes = run.evaluation["notes"]
    best_epoch = run.history["epoch"] == run.record["best_epoch"]
    return template.render(
        FILE_NAME,
        run=run.record,
        metrics=run.metrics,
        flags=run.flags,
        model=run.model_name,
        positive=run.positive,
        split=run.split,
        evaluation=run.evaluation,
        summary=[*summary(run), *notes],
        rows=metric_rows(run),
        best=run.history[best_epoch].iloc[0],
        charts=charts,
        calibration=calibration_sentences(run),
        gallery=gallery.groups(run.predictions, images),
        cells=images and images.cells,
        subgroups=None
        if run.subgroups is None
        else subgroup_section.section(run.subgroups),
        dataset=run.record["data"]["dataset"],
    )
