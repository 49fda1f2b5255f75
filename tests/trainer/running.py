"""Runs and jobs of the tiny model, for tests."""

import contextlib
import os
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from support import command, figures
from trainer import main, models
from trainer.config import TrainConfig
from trainer.data import open_dataset
from trainer.loop import job as jobs
from trainer.loop import runtime


def run(config: TrainConfig, charts: bool = False) -> int:
    """Runs the program as the command line does; returns its exit code."""
    with contextlib.nullcontext() if charts else without_charts():
        return command.guard(main.main, ["main", *command.flags_text(config).split()])


def without_charts() -> contextlib.AbstractContextManager:
    """Leaves the charts out of reports: they take half the time of a tiny run."""
    return mock.patch.multiple(figures, png=lambda *_: b"", svg=lambda *_: "")


def job(config: TrainConfig) -> jobs.Job:
    dataset = open_dataset(config.data_dir)
    return jobs.Job(config, runtime.prepare(config), dataset)


def signal_in(patch, owner, name: str, number: int, call: int = 1) -> None:
    """Sends a signal when a function is called for the nth time."""
    function, calls = getattr(owner, name), []

    def interrupt(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    patch.setattr(owner, name, interrupt)


def outcome(folder: Path) -> tuple[list[np.ndarray], pd.DataFrame, pd.DataFrame]:
    """The best model's weights, the history without timings, and the predictions."""
    timings = ["images_per_second", "input_wait", "seconds", "validation_seconds"]
    model = models.build("tiny", 32)
    models.read_weights(model, folder / "best.keras")
    history = pd.read_csv(folder / "history.csv").drop(columns=timings)
    return model.get_weights(), history, pd.read_csv(folder / "predictions.csv")


def check_same_outcome(folder: Path, expected: Path) -> None:
    """Compares two finished runs, bit by bit."""
    (weights, *tables), (weights_2, *tables_2) = map(outcome, (folder, expected))
    for got, want in zip(weights, weights_2, strict=True):
        np.testing.assert_array_equal(got, want)
    for got, want in zip(tables, tables_2, strict=True):
        pd.testing.assert_frame_equal(got, want, check_exact=True)
