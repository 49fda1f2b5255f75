"""The end of a run: the best model on the test split, metrics, report, record."""

import json
from pathlib import Path

import pandas as pd

from support.files import atomic_write, output_errors, sha256_file
from trainer import (
    checkpoint,
    input_pipeline,
    metrics,
    models,
    report,
    run_folder,
    subgroup_table,
    subgroups,
)
from trainer.checkpoint import Progress
from trainer.evaluate import LOGIT, predict_split
from trainer.groups import attributes_of
from trainer.train import Job

PREDICTIONS, METRICS = "predictions.csv", "metrics.json"
TEST = "test"


def finish(job: Job, run_dir: Path, progress: Progress) -> Path:
    """Evaluates the best model on the test split and writes what the run leaves.

    The status in run.json turns to "finished" last, so that a run stopped in here is
    finished by the same command.

    Returns:
      The report's path.
    """
    models.read_weights(job.model, run_dir / models.BEST)
    predictions = predict_split(
        job.evaluation_step,
        job.dataset,
        TEST,
        job.config.batch_size,
        job.runtime.strategy,
    )
    result = metrics.evaluate(predictions, seed=job.config.seed)
    with output_errors(run_dir):
        path = _write(job, run_dir, progress, predictions, result)
    _say(result, path)
    return path


def _write(
    job: Job, run_dir: Path, progress: Progress, predictions: pd.DataFrame, result: dict
) -> Path:
    columns = predictions.drop(columns=LOGIT)
    atomic_write(run_dir / PREDICTIONS, columns.to_csv(index=False))
    atomic_write(run_dir / METRICS, json.dumps(result, indent=1) + "\n")
    if attributes_of(columns):
        attribute, seed = job.dataset.manifest.attribute, job.config.seed
        table = subgroups.evaluate(columns, attribute, seed=seed)
        subgroup_table.write(table, run_dir)
    run = models.read_run(run_dir) | {
        "status": run_folder.FINISHED,
        "finished": run_folder.now(),
        "files": {models.BEST: sha256_file(run_dir / models.BEST)},
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "train_seconds": progress.seconds,
        "images_per_second": _mean(progress, "images_per_second"),
        "input_wait": _mean(progress, "input_wait"),
    }
    models.write_run(run_dir, run | {"status": run_folder.RUNNING})
    pictures = None
    if job.config.report_images:
        shown = report.gallery_ids(predictions)
        pictures = input_pipeline.read_images(job.dataset, TEST, shown)
    path = report.write_report(run_dir, pictures)
    models.write_run(run_dir, run)
    checkpoint.clear(run_dir)
    return path


def _mean(progress: Progress, column: str) -> float:
    """Mean over the epochs, weighted by their seconds."""
    rows = progress.history
    return sum(row[column] * row["seconds"] for row in rows) / sum(
        row["seconds"] for row in rows
    )


def _say(result: dict, path: Path) -> None:
    accuracy = result["accuracy"]
    interval = accuracy["interval"]
    bounds = (
        f" (95 % interval {interval[0]:.2%} to {interval[1]:.2%}, resampling people)"
        if interval
        else ""
    )
    print(
        f"test accuracy {accuracy['value']:.2%}{bounds} on {result['n']} images of "
        f"{result['people']} people\nreport: {path}"
    )
