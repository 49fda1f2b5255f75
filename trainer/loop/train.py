"""The loop: epochs, validation, the best model, checkpoints, an early end."""

import math
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from support.errors import ExitCode, UserError
from support.files import atomic_write, output_errors
from trainer import models
from trainer.config import TrainConfig
from trainer.loop import checkpoint
from trainer.loop.checkpoint import Progress
from trainer.loop.job import Job
from trainer.loop.live import Live, live
from trainer.loop.progress import stopped
from trainer.loop.scoring import LOGIT, predict_split
from trainer.loop.steps import split_batch

HISTORY = "history.csv"


def train(job: Job, run_dir: Path) -> Progress:
    """Trains to the end, or on from the newest checkpoint in `run_dir`.

    Leaves best.keras and history.csv in the run folder.

    Raises:
      UserError: the loss is no longer finite (exit 6); stopped by a signal (75, 130);
        the disk is full (4).
    """
    progress, skipped = checkpoint.restore(run_dir, job.variables)
    for line in skipped:
        print(line)
    if progress is not None and _is_over(job.config, progress):
        print("all epochs are done: going on with the evaluation")
    elif progress is not None:
        print(f"going on in epoch {progress.epoch + 1} after step {progress.step}")
    progress = progress or Progress()
    with live(job.config, run_dir, progress) as now:
        batches = job.train_dataset(_global_step(job, progress))
        batches = job.dataset.iterate("train", batches)
        while not _is_over(job.config, progress):
            row = _train_epoch(job, run_dir, progress, now, batches)
            row |= _validate(job, run_dir, progress, now)
            with output_errors(run_dir):
                _end_epoch(job, run_dir, progress, row)
            if now.board:
                now.board.add(row)
            _stop_if_asked(job, run_dir, progress, now)
    return progress


def _train_epoch(
    job: Job, run_dir: Path, progress: Progress, now: Live, batches: Iterator
) -> dict[str, Any]:
    """Runs what is left of an epoch; returns its row of the history."""
    config = job.config
    meter = now.meter(config, job.steps_per_epoch, progress)
    _stop_if_asked(job, run_dir, progress, now)
    while progress.step < job.steps_per_epoch:
        with now.trace.step(_global_step(job, progress) + 1):
            batch = meter.wait(batches)
            job.train_step(split_batch(batch, job.runtime.strategy))
        meter.step()
        # Reading the sums waits for the device: only where somebody sees them.
        if meter.is_due():
            loss, hits, seen = _check_finite(job, progress, run_dir)
            meter.show(loss / seen, hits / seen)
        if config.checkpoint_every and (
            _global_step(job, progress) % config.checkpoint_every == 0
        ):
            _save(job, run_dir, progress)
        _stop_if_asked(job, run_dir, progress, now)
    loss, hits, seen = _check_finite(job, progress, run_dir)
    return {
        "epoch": progress.epoch + 1,
        "step": _global_step(job, progress),
        "learning_rate": float(job.optimizer.learning_rate()),
        "loss": loss / seen,
        "accuracy": hits / seen,
        **meter.row(),
    }


def _stop_if_asked(job: Job, run_dir: Path, progress: Progress, now: Live) -> None:
    """Ends a run that was asked to stop, with a checkpoint from which it goes on."""
    if now.stop.signal is not None:
        _save(job, run_dir, progress)
        raise stopped(now.stop.signal, continue_command(run_dir))


def _validate(job: Job, run_dir: Path, progress: Progress, now: Live) -> dict:
    """Evaluates the averaged weights on the validation split."""
    started = time.perf_counter()
    now.line.note(f"epoch {progress.epoch + 1}/{job.config.epochs}  validating")
    job.publish()
    predictions = predict_split(
        job.evaluation_step,
        job.dataset.iterate("validation", job.validation),
        job.runtime.strategy,
        lambda: _stop_if_asked(job, run_dir, progress, now),
    )
    now.line.close()
    if not np.isfinite(predictions[LOGIT]).all():
        raise _diverged(job, progress, run_dir)
    labels = tf.constant(predictions["label"], tf.float32)
    logits = tf.constant(predictions[LOGIT], tf.float32)
    both = predictions["label"].nunique() == 2
    auc = roc_auc_score(predictions["label"], predictions[LOGIT]) if both else math.nan
    return {
        "val_loss": float(tf.reduce_mean(job.objective.losses(labels, logits))),
        "val_accuracy": float(
            ((predictions[LOGIT] > 0) == (predictions["label"] == 1)).mean()
        ),
        "val_auc": float(auc),
        "validation_seconds": time.perf_counter() - started,
    }


def _end_epoch(job: Job, run_dir: Path, progress: Progress, row: dict[str, Any]):
    """Keeps the best model, writes history and checkpoint."""
    better = row["val_loss"] < progress.best_loss
    if better:
        progress.best_loss, progress.best_epoch = row["val_loss"], row["epoch"]
        path = checkpoint.best_path(run_dir, row["epoch"])
        progress.best_sha256 = models.save(job.model, path)
    progress.history.append(row)
    progress.epoch, progress.step = row["epoch"], 0
    progress.epoch_seconds = progress.epoch_waited = 0.0
    job.train_step.reset()
    atomic_write(run_dir / HISTORY, pd.DataFrame(progress.history).to_csv(index=False))
    _save(job, run_dir, progress)
    print(
        f"epoch {row['epoch']:>3}/{job.config.epochs}  "
        f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.2%}  "
        f"validation: loss {row['val_loss']:.4f}  accuracy {row['val_accuracy']:.2%}  "
        f"{row['images_per_second']:,.1f} images/s  "
        f"input wait {row['input_wait']:.1%}{'  best' if better else ''}",
        flush=True,
    )


def _is_over(config: TrainConfig, progress: Progress) -> bool:
    if progress.epoch >= config.epochs:
        return True
    waited = progress.epoch - progress.best_epoch
    return bool(config.patience and waited >= config.patience)


def _save(job: Job, run_dir: Path, progress: Progress) -> None:
    _check_finite(job, progress, run_dir)
    job.average_statistics()
    checkpoint.save(run_dir, _global_step(job, progress), job.variables, progress)


def _global_step(job: Job, progress: Progress) -> int:
    return progress.epoch * job.steps_per_epoch + progress.step


def continue_command(run_dir: Path) -> str:
    flags_file = shlex.quote(str(run_dir / "flags.txt"))
    return f"python -m trainer.main --flagfile={flags_file}"


def _check_finite(job: Job, progress: Progress, run_dir: Path) -> np.ndarray:
    """The epoch's sums; once loss or gradients are not finite, the run ends instead."""
    sums = job.train_step.sums.numpy()
    failed = job.optimizer.failed_step
    if failed or not math.isfinite(sums[0]):
        raise _diverged(job, progress, run_dir, failed)
    return sums


def _diverged(
    job: Job, progress: Progress, run_dir: Path, failed: int = 0
) -> UserError:
    step = failed or _global_step(job, progress)
    rate = float(job.optimizer.learning_rate(step))
    kept = checkpoint.exists(run_dir)
    what = "gradients are" if failed else "loss is"
    return UserError(
        f"The {what} not finite in epoch {progress.epoch + 1} (step {step}, learning "
        f"rate {rate:.2g}, {job.runtime.precision})"
        + (f"; the checkpoint before it is in {run_dir}." if kept else "."),
        f"Start a new run with --learning_rate={job.config.learning_rate / 3:.1g}"
        + (" or --precision=float32." if job.runtime.precision == "float16" else "."),
        ExitCode.DIVERGED,
    )
