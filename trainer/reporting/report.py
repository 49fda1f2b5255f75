"""The report of one run: one HTML file that opens offline, and its figures as PNG."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support import figures, files
from support.text import decimal, interval, percent
from trainer.evaluation import calibration, metrics, subgroups
from trainer.evaluation.group_rates import RATES
from trainer.evaluation.loading import Run, load_run
from trainer.reporting import gallery, plots, template
from trainer.reporting.forest import subgroup_gaps
from trainer.reporting.gallery import Images

FILE_NAME = "report.html"
_GAPS = 15

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


def values(run: Run, shown: int) -> dict[str, Any]:
    """What the templates of the report and of the model card say of a run.

    Args:
      run: see `load_run`.
      shown: how many of the clearest gaps of subgroups, see `subgroups.clearest_gaps`.
    """
    table = run.subgroups
    return {
        "run": run,
        "record": run.record,
        "data": run.record["data"],
        "split_note": template.SPLITS.get(run.record["data"]["split"], ""),
        "rows": metric_rows(run),
        "subgroups": None if table is None else subgroups.summary(table),
        "gaps": None if table is None else subgroups.clearest_gaps(table, shown),
    }


def metric_rows(run: Run) -> list[dict[str, str]]:
    """Name, meaning, value and interval of every metric that there is."""
    positive, negative = run.positive, f"not {run.positive}"
    # Runs made by earlier versions lack the newer metrics.
    known = [(key, positive, run.metrics) for key in METRICS if key in run.metrics]
    if "per_class" in run.metrics:
        of_label_0 = run.metrics["per_class"][0]
        known += [(key, negative, of_label_0) for key in metrics.PER_CLASS]
    rows = []
    for key, name, values in known:
        title, meaning, formatter = METRICS[key]
        row = {
            "name": title if name == positive else f"{title}, {name}",
            "meaning": meaning.format(name=name),
            "value": formatter(values[key]["value"]),
            "interval": interval(values[key]["interval"], formatter),
        }
        rows.append(row)
    return rows


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
    best_epoch = run.history["epoch"] == run.record["best_epoch"]
    return template.html(
        FILE_NAME,
        **values(run, _GAPS),
        best=run.history[best_epoch].iloc[0],
        charts=template.charts(panels),
        subgroup_gaps=subgroup_gaps,
        rates=RATES,
        gallery=gallery.choose(run.predictions),
        images=images if images and images.jpegs else None,
    )
