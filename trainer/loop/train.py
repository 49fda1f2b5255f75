"""The loop: epochs, validation, the best model, checkpoints, an early end."""

import contextlib
import dataclasses
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

from support import command
from support.errors import ExitCode, UserError
from support.files import atomic_write, output_errors
from support.progress import Progress as ProgressLine
from trainer import models
from trainer.loop import checkpoint
from trainer.loop.checkpoint import Progress
from trainer.loop.job import Job
from trainer.loop.progress import Meter, StopRequest, epoch_label
from trainer.loop.scoring import LOGIT, predict_split
from trainer.loop.steps import split_batch
from trainer.loop.tensorboard import Events, Trace
from trainer.runs import FLAGS, HISTORY
from trainer.runs.record import read_run


def train(job: Job, run_dir: Path) -> Progress:
    """Trains to the end, from the newest checkpoint in `run_dir` if there is one.

    Leaves best.keras and history.csv in the run folder.

    Raises:
      UserError: the loss is no longer finite (exit 6); stopped by a signal (75, 130);
        the disk is full (4).
    """
    progress, skipped = checkpoint.restore(run_dir, job.variables)
    for line in skipped:
        print(line)
    resumed, progress = progress is not None, progress or Progress()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        events = None
        if job.config.tensorboard:
            started = read_run(run_dir)["started"]
            events = stack.enter_context(
                Events(run_dir, job.config, started, progress.history)
            )
        trace = Trace(run_dir, job.config)
        stack.callback(trace.stop)
        loop = Loop(job, run_dir, progress, stop, events, trace)
        if resumed and loop.is_over():
            print("all epochs are done: resuming with the evaluation")
        elif resumed:
            print(f"resuming in epoch {progress.epoch + 1} after step {progress.step}")
        loop.run()
    return progress


@dataclasses.dataclass(frozen=True)
class Loop:
    """A run's loop, from where `progress` says that the run is.

    Attributes:
      job: the run's parts.
      run_dir: the run folder.
      progress: what is done; the loop keeps it up to date.
      stop: asked between two steps.
      events: of TensorBoard, None without them.
      trace: of the profiler.
    """

    job: Job
    run_dir: Path
    progress: Progress
    stop: StopRequest
    events: Events | None
    trace: Trace

    def run(self) -> None:
        """Trains until all epochs are done or the patience is exhausted."""
        batches = self.job.train_dataset(self._global_step())
        batches = self.job.dataset.iterate("train", batches)
        while not self.is_over():
            row = self._train_epoch(batches)
            row |= self._validate()
            with output_errors(self.run_dir):
                self._end_epoch(row)
            if self.events:
                self.events.add(row)
            self._stop_if_asked()

    def is_over(self) -> bool:
        """Tells whether no epoch is left to train."""
        config, progress = self.job.config, self.progress
        if progress.epoch >= config.epochs:
            return True
        waited = progress.epoch - progress.best_epoch
        return bool(config.patience and waited >= config.patience)

    def _train_epoch(self, batches: Iterator) -> dict[str, Any]:
        """Runs the rest of an epoch; returns its row of the history."""
        job, progress = self.job, self.progress
        every = job.config.checkpoint_every
        self._stop_if_asked()
        with Meter(job.config, job.steps_per_epoch, progress) as meter:
            while progress.step < job.steps_per_epoch:
                with self.trace.step(self._global_step() + 1):
                    batch = meter.wait(batches)
                    job.train_step(split_batch(batch, job.runtime.strategy))
                meter.step()
                # Reading the sums waits for the device: only where somebody sees them.
                if meter.is_due():
                    loss, correct, seen = self._finite_sums()
                    meter.show(loss / seen, correct / seen)
                if every and self._global_step() % every == 0:
                    self._save()
                self._stop_if_asked()
            loss, correct, seen = self._finite_sums()
            return {
                "epoch": progress.epoch + 1,
                "step": self._global_step(),
                "learning_rate": float(job.optimizer.learning_rate()),
                "loss": loss / seen,
                "accuracy": correct / seen,
                **meter.row(),
            }

    def _validate(self) -> dict[str, float]:
        """Evaluates the averaged weights on the validation split."""
        job, started = self.job, time.perf_counter()
        job.publish()
        count = job.dataset.manifest.num_examples("validation")
        label = f"{epoch_label(job.config, self.progress)} validating"
        with ProgressLine(count, label) as line:

            def between_batches():
                self._stop_if_asked()
                line.update(job.config.batch_size)

            predictions = predict_split(
                job.evaluation_step,
                job.dataset,
                "validation",
                job.validation,
                between_batches,
            )
        logits, labels = predictions[LOGIT], predictions["label"]
        if not np.isfinite(logits).all():
            raise self._diverged()
        losses = job.objective.losses(
            tf.constant(labels, tf.float32), tf.constant(logits, tf.float32)
        )
        both = labels.nunique() == 2
        return {
            "val_loss": float(tf.reduce_mean(losses)),
            "val_accuracy": float(((logits > 0) == (labels == 1)).mean()),
            "val_auc": float(roc_auc_score(labels, logits)) if both else math.nan,
            "validation_seconds": time.perf_counter() - started,
        }

    def _end_epoch(self, row: dict[str, Any]) -> None:
        """Keeps the best model, writes history and checkpoint."""
        job, run_dir, progress = self.job, self.run_dir, self.progress
        better = row["val_loss"] < progress.best_loss
        if better:
            progress.best_loss, progress.best_epoch = row["val_loss"], row["epoch"]
            path = checkpoint.best_path(run_dir, row["epoch"])
            progress.best_sha256 = models.save(job.model, path)
        label = epoch_label(job.config, progress)
        progress.history.append(row)
        progress.epoch, progress.step = row["epoch"], 0
        progress.epoch_seconds = progress.epoch_waited = 0.0
        job.train_step.reset()
        table = pd.DataFrame(progress.history).to_csv(index=False)
        atomic_write(run_dir / HISTORY, table)
        self._save()
        print(
            f"{label}  "
            f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.2%}  validation: "
            f"loss {row['val_loss']:.4f}  accuracy {row['val_accuracy']:.2%}  "
            f"{row['images_per_second']:,.1f} images/s  "
            f"input wait {row['input_wait']:.1%}{'  best' if better else ''}",
            flush=True,
        )

    def _stop_if_asked(self) -> None:
        """Ends a run that was asked to stop, with a checkpoint to resume from."""
        if self.stop.signal is not None:
            self._save()
            raise stopped(self.stop.signal, self.run_dir)

    def _save(self) -> None:
        self._finite_sums()
        self.job.average_statistics()
        checkpoint.save(
            self.run_dir, self._global_step(), self.job.variables, self.progress
        )

    def _global_step(self) -> int:
        return self.progress.epoch * self.job.steps_per_epoch + self.progress.step

    def _finite_sums(self) -> np.ndarray:
        """The epoch's sums; if loss or gradients are not finite, the run ends."""
        sums = self.job.train_step.sums.numpy()
        failed = self.job.optimizer.failed_step
        if failed or not math.isfinite(sums[0]):
            raise self._diverged(failed)
        return sums

    def _diverged(self, failed_step: int = 0) -> UserError:
        job = self.job
        step = failed_step or self._global_step()
        rate = float(job.optimizer.learning_rate(step))
        kept = checkpoint.exists(self.run_dir)
        what = "gradients are" if failed_step else "loss is"
        in_float16 = job.runtime.precision == "float16"
        return UserError(
            f"The {what} not finite in epoch {self.progress.epoch + 1} (step {step}, "
            f"learning rate {rate:.2g}, {job.runtime.precision})"
            + (f"; the checkpoint before it is in {self.run_dir}." if kept else "."),
            f"Start a new run with --learning_rate={job.config.learning_rate / 3:.1g}"
            + (" or --precision=float32." if in_float16 else "."),
            ExitCode.DIVERGED,
        )


def stopped(number: int, run_dir: Path) -> UserError:
    """The end of a run that a signal stopped."""
    return command.stopped(number, f"Resume with: {resume_command(run_dir)}")


def resume_command(run_dir: Path) -> str:
    """The command line that resumes a run."""
    flags_file = shlex.quote(str(run_dir / FLAGS))
    return f"python -m trainer.main --flagfile={flags_file}"
