"""Runs and jobs of the tiny model, for tests."""

from support import command
from trainer import input_pipeline, main, runtime
from trainer import job as jobs
from trainer.config import TrainConfig


def run(config: TrainConfig) -> int:
    """Runs the program as the command line does; returns its exit code."""
    return command.guard(main.main, ["main", *command.flags_text(config).split()])


def job(config: TrainConfig) -> jobs.Job:
    dataset = input_pipeline.open_dataset(config.data_dir)
    return jobs.build_job(config, runtime.prepare(config), dataset)


def train_batches(built: jobs.Job):
    augmentation = input_pipeline.Augmentation(20, (0.1, 0.1), True)
    size = built.config.batch_size
    return input_pipeline.train_batches(built.dataset, size, 0, 0, augmentation)
