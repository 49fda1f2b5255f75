"""Trains one model and reports on it: `python -m trainer.main --flagfile=FILE`."""

import contextlib
from pathlib import Path

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
from support import command, memory
from support.files import FolderLock
from trainer import augmentation, finish
from trainer.config import TrainConfig
from trainer.data import Dataset, open_dataset
from trainer.data.dataset import splits_that_fit
from trainer.loop import checkpoint, runtime, train, wakeup
from trainer.loop.job import Job
from trainer.runs import FLAGS, RUN, folder, record


def main(argv: list[str]) -> None:
    given = command.parse_config(TrainConfig, argv)
    augmentation.check(given.augment)
    # Recorded in flags.txt, so that the command printed when it stops finds the folder.
    config = folder.place(given, argv)
    run_dir = Path(config.run_dir)
    try:
        with FolderLock(run_dir):
            _run(config, run_dir)
    finally:
        if not given.run_dir:
            with contextlib.suppress(OSError):  # it is not empty
                run_dir.rmdir()


def _run(config: TrainConfig, run_dir: Path) -> None:
    folder.check_options(run_dir, config)
    if record.is_finished(run_dir):
        checkpoint.clear(run_dir)
        print(f"{run_dir} is finished: nothing to do.")
        return
    dataset = open_dataset(config.data_dir)
    smaller = f"--batch_size={config.batch_size // 2}, or with smaller images."
    if config.batch_size == 1:
        smaller = "a smaller --input_size."
    try:
        with memory.named(f"Start a new run with {smaller}"):
            _train(config, run_dir, dataset)
    except command.Stopped as error:  # outside the loop
        if not (run_dir / FLAGS).is_file():
            raise  # before there was anything to resume
        raise train.stopped(error.signal, run_dir) from error


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
    job = Job(config, effective, dataset, preprocessing, cached)
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
