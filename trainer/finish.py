"""The end of a run: the best model on the test split, metrics, report, record."""

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd

from support.errors import ExitCode, UserError
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
from trainer.steps import EvaluationStep
from trainer.train import Job

PREDICTIONS, METRICS = "predictions.csv", "metrics.json"
TEST = "test"


def finish(job: Job, run_dir: Path, progress: Progress) -> Path:
    """Evaluates the best model on the test split and writes what the run leaves.

    The status in run.json turns to "finished" last, so that a run stopped in here is
    finished by the same command.

    Returns:
      The report's path.

    Raises:
      UserError: the best model is damaged (exit 5); the disk is full (4).
    """
    best = run_dir / models.BEST
    if sha256_file(best) != progress.best_sha256:
        raise UserError(
            f"{best} is not the file that the run wrote (its sha256 differs).",
            "Choose another --run_dir to start anew.",
            ExitCode.INTEGRITY,
        )
    models.read_weights(job.model, best)
    clock = _Clock(job.evaluation_step, job.config.batch_size)
    predictions = predict_split(
        clock,
        job.dataset,
        TEST,
        job.config.batch_size,
        job.runtime.strategy,
    )
    result = metrics.evaluate(predictions, seed=job.config.seed)
    with output_errors(run_dir):
        path = _write(job, run_dir, progress, predictions, result, clock.rate)
    _say(result, path)
    return path


def _write(
    job: Job,
    run_dir: Path,
    progress: Progress,
    predictions: pd.DataFrame,
    result: dict,
    inference_rate: float | None,
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
        "files": {models.BEST: progress.best_sha256},
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "train_seconds": progress.seconds,
        "images_per_second": _mean(progress, "images_per_second"),
        "input_wait": _mean(progress, "input_wait"),
        "inference_images_per_second": inference_rate,
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


class _Clock:
    """Times an evaluation step from its second batch on: the first may compile it.

    Reading and decoding are not in it; stretch, forward pass and transfer are.
    """

    def __init__(self, step: EvaluationStep, batch_size: int):
        self._step = step
        self._batch_size = batch_size
        self._batches = -1
        self._seconds = 0.0

    def __call__(self, images: Any) -> Any:
        started = time.perf_counter()
        logits = self._step(images)
        logits.numpy()  # waits for the device
        if self._batches >= 0:
            self._seconds += time.perf_counter() - started
        self._batches += 1
        return logits

    @property
    def rate(self) -> float | None:
        """Images per second, or None after one batch only."""
        if self._batches < 1:
            return None
        return self._batches * self._batch_size / self._seconds


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
