"""The end of a training, and of `trainer.evaluate`: results are written in one way."""

import contextlib
import shlex
import sys
from collections.abc import Iterator
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
from trainer.runs import BEST, REPORT, VALIDATION_PREDICTIONS, record

VALIDATION, TEST = "validation", "test"


def finish(job: Job, run_dir: Path, progress: Progress) -> None:
    """Evaluates the best model on the test split and writes what the run leaves.

    The temperature that divides all logits is fitted on the validation split. The
    status in run.json turns to "finished" last, so that a run stopped in here is
    finished by the same command.

    Raises:
      UserError: the best model is damaged (exit 5); the disk is full (4).
    """
    best = run_dir / BEST
    if sha256_file(best) != progress.best_sha256:
        raise UserError(
            f"{best} is not the file that the run wrote (its sha256 differs).",
            "Choose another --run_dir to start again.",
            ExitCode.INTEGRITY,
        )
    models.read_weights(job.model, best)
    step, dataset = job.evaluation_step, job.dataset
    validation = predict_split(step, dataset, VALIDATION, job.validation)
    temperature = calibration.fit_temperature(
        validation["label"].to_numpy(), validation[results.LOGIT].to_numpy()
    )
    seconds = []
    batches = job.evaluation_dataset(TEST)
    test = predict_split(step, dataset, TEST, batches, seconds=seconds)
    run = record.read_run(run_dir) | {
        "status": record.FINISHED,
        "finished": record.now(),
        "files": {BEST: progress.best_sha256},
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "train_seconds": progress.seconds,
        "images_per_second": _mean(progress, "images_per_second"),
        "input_wait": _mean(progress, "input_wait"),
        "temperature": temperature,
        "inference_images_per_second": _rate(seconds, job.config.batch_size),
    }
    with output_errors(run_dir):
        table = results.calibrated(validation, temperature).drop(columns=results.LOGIT)
        atomic_write(run_dir / VALIDATION_PREDICTIONS, table.to_csv(index=False))
        atomic_write(run_dir / manifest_schema.FILE_NAME, dataset.manifest.to_json())
        record.write_run(run_dir, run | {"status": record.RUNNING})
        conclude(
            run_dir,
            run_dir,
            job.model,
            dataset,
            test,
            job.config.report_images,
            temperature=temperature,
            split=TEST,
            seed=job.config.seed,
        )
        with _drawing(run_dir / "MODEL_CARD.md", "trainer.model_card", run_dir):
            from trainer.reporting.card import write_card

            write_card(run_dir)
        record.write_run(run_dir, run)
        checkpoint.clear(run_dir)


def conclude(
    run_dir: Path,
    folder: Path,
    model: keras.Model,
    dataset: Dataset,
    predictions: pd.DataFrame,
    report_images: bool,
    evaluation: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Calibrates and assesses predictions, writes the results, then the report.

    Args:
      run_dir: the run's folder, with what the report says of the training.
      folder: of the results.
      model: for the heat maps.
      dataset: with the images.
      predictions: see `predict_split`.
      report_images: whether the report shows images.
      evaluation: what metrics.json says of model and data, if this is not the run's
        own test; its `notes` are printed.
      **options: of `results.assess`.

    Returns:
      What metrics.json holds.

    Raises:
      UserError: the disk is full or not writable (exit 4). A report that cannot be
        drawn is a note: the results stand.
    """
    predictions = results.calibrated(predictions, options["temperature"])
    result = results.assess(predictions, **options)
    if evaluation:
        result["evaluation"] = evaluation
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        results.write(folder, predictions, result, dataset.manifest.attribute)
    print(results.summary(result))
    for note in evaluation["notes"] if evaluation else ():
        print(f"note: {note}")
    elsewhere = None if folder == run_dir else folder
    with _drawing(folder / REPORT, "trainer.report", run_dir, results_dir=elsewhere):
        # Imported late: matplotlib takes seconds, and may not start.
        from trainer.reporting import gradcam, report

        images = None
        if report_images:
            images = gradcam.report_images(model, dataset, result["split"], predictions)
        print(f"report: {report.write_report(run_dir, images, elsewhere)}", flush=True)
    return result


@contextlib.contextmanager
def _drawing(
    path: Path, program: str, run_dir: Path, results_dir: Path | None = None
) -> Iterator[None]:
    """Makes a note of what cannot be drawn, and leaves no old one in its place."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of matplotlib, Pillow, a device without memory
        path.unlink(missing_ok=True)
        words = ["python", "-m", program, f"--run_dir={run_dir}"]
        words += [f"--results_dir={results_dir}"] if results_dir else []
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        print(
            f"note: {path} could not be made ({reason}); the results are complete.\n"
            f"      Make it with: {shlex.join(words)}",
            file=sys.stderr,
        )


def _rate(seconds: list[float], batch_size: int) -> float | None:
    """Images per second from the second batch on: the first may compile the step."""
    return batch_size * len(seconds[1:]) / sum(seconds[1:]) if seconds[1:] else None


def _mean(progress: Progress, column: str) -> float:
    """Mean over the epochs, weighted by their seconds."""
    rows = progress.history
    return sum(row[column] * row["seconds"] for row in rows) / sum(
        row["seconds"] for row in rows
    )
