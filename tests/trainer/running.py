"""Runs and jobs of the tiny model, for tests."""

from support import command
from trainer import main
from trainer.config import TrainConfig
from trainer.data import open_dataset
from trainer.loop import job as jobs
from trainer.loop import runtime


def run(config: TrainConfig) -> int:
    """Runs the program as the command line does; returns its exit code."""
    return command.guard(main.main, ["main", *command.flags_text(config).split()])


def job(config: TrainConfig) -> jobs.Job:
    dataset = open_dataset(config.data_dir)
    return jobs.build_job(config, runtime.prepare(config), dataset)
