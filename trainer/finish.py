"""The end of a run: the best model on the test split, metrics, report, record.

`write_results` is how `trainer.evaluate` ends, too.
"""

import time
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from schemas import manifest as manifest_schema
from support.errors import ExitCode, UserError
from support.files import atomic_write, output_errors, sha256_file
from trainer import models
from trainer.data import Dataset
from trainer.evaluation import calibration, results
from trainer.loop import checkpoint
from trainer.loop.checkpoint import Progress
from trainer.loop.job import Job
from trainer.loop.scoring import predict_split
from trainer.loop.steps import EvaluationStep
from trainer.reporting import gradcam, report
from trainer.reporting.card import write_card
from trainer.runs import BEST, VALIDATION_PREDICTIONS, record

VALIDATION, TEST = "validation", "test"


def finish(job: Job, run_dir: Path, progress: Progress) -> Path:
    """Evaluates the best model on the test split and writes what the run leaves.

    The temperature that divides all logits is fitted on the validation split. The
    status in run.json turns to "finished" last, so that a run stopped in here is
    finished by the same command.

    Returns:
      The report's path.

    Raises:
      UserError: the best model is damaged (exit 5); the disk is full (4).
    """
    best = run_dir / BEST
    if sha256_file(best) != progress.best_sha256:
        raise UserError(
            f"{best} is not the file that the run wrote (its sha256 differs).",
            "Choose another --run_dir to start anew.",
            ExitCode.INTEGRITY,
        )
    models.read_weights(job.model, best)
    validation = _predict(job, job.evaluation_step, VALIDATION)
    temperature = calibration.fit_temperature(
        validation["label"].to_numpy(), validation[results.LOGIT].to_numpy()
    )
    validation = results.calibrated(validation, temperature)
    clock = _Clock(job.evaluation_step, job.config.batch_size)
    test = results.calibrated(_predict(job, clock, TEST), temperature)
    result = results.assess(test, temperature, TEST, seed=job.config.seed)
    with output_errors(run_dir):
        columns = validation.drop(columns=results.LOGIT).to_csv(index=False)
        atomic_write(run_dir / VALIDATION_PREDICTIONS, columns)
        run = _record(run_dir, progress) | {
            "temperature": temperature,
            "inference_images_per_second": clock.rate,
        }
        record.write_run(run_dir, run | {"status": record.RUNNING})
        images, dataset = job.config.report_images, job.dataset
        path = write_results(run_dir, run_dir, job.model, dataset, test, result, images)
        manifest = dataset.manifest.to_json()
        atomic_write(run_dir / manifest_schema.FILE_NAME, manifest)
        write_card(run_dir)
        record.write_run(run_dir, run)
        checkpoint.clear(run_dir)
    print(f"{results.summary(result)}\nreport: {path}")
    return path


def write_results(
    run_dir: Path,
    folder: Path,
    model: keras.Model,
    dataset: Dataset,
    predictions: pd.DataFrame,
    result: dict[str, Any],
    report_images: bool,
) -> Path:
    """Writes predictions, metrics and the report.

    Args:
      run_dir: the run's folder, with what the report says of the training.
      folder: of the results.
      model: for the heat maps.
      dataset: with the images.
      predictions: see `results.write`.
      result: what `results.assess` returned, with or without additions.
      report_images: whether the report shows images.

    Returns:
      The report's path.

    Raises:
      UserError: the disk is full or not writable (exit 4).
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        results.write(folder, predictions, result, dataset.manifest.attribute)
    images = None
    if report_images:
        images = gradcam.report_images(model, dataset, result["split"], predictions)
    return report.write_report(run_dir, images, folder)


def _predict(job: Job, step: "EvaluationStep | _Clock", split: str) -> pd.DataFrame:
    batches = job.validation if split == VALIDATION else job.evaluation_dataset(split)
    batches = job.dataset.iterate(split, batches)
    return predict_split(
        step, batches, job.runtime.strategy, job.dataset.manifest.attributes
    )


def _record(run_dir: Path, progress: Progress) -> record.RunRecord:
    """What run.json says at the end."""
    return record.read_run(run_dir) | {
        "status": record.FINISHED,
        "finished": record.now(),
        "files": {BEST: progress.best_sha256},
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "train_seconds": progress.seconds,
        "images_per_second": _mean(progress, "images_per_second"),
        "input_wait": _mean(progress, "input_wait"),
    }


class _Clock:
    """Times an evaluation step from its second batch on: the first may compile it.

    Reading and decoding are not in it; resize, forward pass and transfer are.
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
