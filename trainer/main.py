"""Trains one model and reports on it: `python -m trainer.main --flagfile=FILE`."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import tensorflow as tf

from support import command
from support.errors import ExitCode, UserError
from support.files import FolderLock
from trainer import augmentation, finish, models
from trainer.config import TrainConfig
from trainer.data import Dataset, open_dataset
from trainer.data.dataset import splits_that_fit
from trainer.loop import checkpoint, runtime, train, wakeup
from trainer.loop.job import build_job
from trainer.loop.progress import stopped
from trainer.runs import FLAGS, RUN, folder, record


def main(argv: list[str]) -> None:
    config = command.parse_config(TrainConfig, argv)
    models.architecture(config.model)
    augmentation.check(config.augment)
    run_dir = folder.choose(config)
    # Recorded in flags.txt, so that the command printed when it stops finds the folder.
    config = dataclasses.replace(config, run_dir=str(run_dir))
    with FolderLock(run_dir):
        folder.check_options(run_dir, config)
        if record.is_finished(run_dir):
            checkpoint.clear(run_dir)
            print(f"{run_dir} is finished: nothing to do.")
            return
        dataset = open_dataset(config.data_dir)
        with _named_failures(config, run_dir):
            _train(config, run_dir, dataset)


@contextlib.contextmanager
def _named_failures(config: TrainConfig, run_dir: Path) -> Iterator[None]:
    """Says what to do when a run is stopped outside its loop, or runs out of memory."""
    try:
        yield
    except command.Stopped as error:
        if not (run_dir / FLAGS).is_file():
            raise  # stopped before there was anything to resume
        raise stopped(error.signal, train.resume_command(run_dir)) from error
    except (MemoryError, tf.errors.OpError) as error:
        if not runtime.is_out_of_memory(error):
            raise
        raise UserError(
            f"Out of memory with --batch_size={config.batch_size} and "
            f"--input_size={config.input_size}.",
            f"Start a new run with --batch_size={config.batch_size // 2}, or with "
            "smaller images."
            if config.batch_size > 1
            else "Start a new run with a smaller --input_size.",
            ExitCode.OUT_OF_MEMORY,
        ) from error


def _train(config: TrainConfig, run_dir: Path, dataset: Dataset) -> None:
    effective = runtime.prepare(config)
    preprocessing, cached = None, splits_that_fit(dataset.manifest, config.cache_mb)
    if (run_dir / RUN).is_file():
        run = record.read_run(run_dir)
        record.require(run_dir, run, ("decoded_in_memory", "preprocessing"))
        # The order of the images depends on it: it stays, whatever memory is free now.
        cached = tuple(run["decoded_in_memory"])
        if checkpoint.exists(run_dir):
            preprocessing = run["preprocessing"]
    job = build_job(config, effective, dataset, preprocessing, cached)
    run = record.describe(config, dataset.manifest) | effective.describe()
    run |= {
        "parameters": job.model.count_params(),
        "preprocessing": job.preprocessing,
        "decoded_in_memory": list(cached),
    }
    folder.start(run_dir, config, run)
    counts = {
        split: dataset.manifest.num_examples(split)
        for split in ("train", "validation", "test")
    }
    smallest, uneven = divmod(config.batch_size, effective.replicas)
    print(
        f"{config.model}, {run['parameters']:,} parameters, "
        f"{config.input_size} pixels; "
        f"{effective.precision}, XLA {'on' if effective.xla else 'off'}, "
        f"{effective.replicas} replica(s) on {effective.device_name}\n"
        f"examples: {counts}; global batch {config.batch_size}, "
        f"{smallest}{f' or {smallest + 1}' if uneven else ''} per replica, "
        f"{job.steps_per_epoch} steps per epoch; run folder {run_dir}\n"
        f"decoded images stay in memory: {', '.join(cached) or 'none'}\n"
        f"after a stop, resume with: {train.resume_command(run_dir)}",
        flush=True,
    )
    with wakeup.Watch():
        progress = train.train(job, run_dir)
        finish.finish(job, run_dir, progress)


if __name__ == "__main__":
    command.run(main)
