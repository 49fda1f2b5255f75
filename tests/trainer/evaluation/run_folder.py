"""Folders of finished runs made by hand, and what is asked of them."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from schemas import celeba
from support.errors import ExitCode, UserError
from trainer.evaluation import metrics

HISTORY = {"epoch": [1, 2], "loss": [0.7, 0.4], "accuracy": [0.6, 0.8]}
HISTORY |= {"val_loss": [0.6, 0.5], "val_accuracy": [0.7, 0.85]}


def data(**changes) -> dict:
    """What `run.json` says of the data."""
    return {
        "image_shape": [218, 178, 3],
        "split": "identity",
        "class_counts": dict.fromkeys(celeba.SPLITS, [60, 60]),
        "dataset": dataclasses.asdict(celeba.CELEBA.about),
        "sources": {},
    } | changes


def write(
    folder: Path,
    predictions: pd.DataFrame | None = None,
    flags: str = "--model=resnet50\n",
    **record,
) -> Path:
    """Writes the files of a run; with predictions also their metrics."""
    folder.mkdir(parents=True)
    if predictions is not None:
        predictions.to_csv(folder / "predictions.csv", index=False)
        result = metrics.evaluate(predictions, draws=200)
        (folder / "metrics.json").write_text(json.dumps(result))
    pd.DataFrame(HISTORY).to_csv(folder / "history.csv", index=False)
    (folder / "flags.txt").write_text(flags)
    run = {
        "status": "finished",
        "model": "resnet50",
        "attribute": "Male",
        "seed": 3,
        "manifest_digest": "ab" * 32,
        "parameters": 23_589_761,
        "best_epoch": 2,
        "epochs": 2,
        "train_seconds": 61.0,
        "device_name": "a <processor>",
        "data": data(),
    }
    (folder / "run.json").write_text(json.dumps(run | record))
    return folder


def predictions(count: int, spread: float = 2.0, mean: float = 2.0) -> pd.DataFrame:
    """Predictions with logits, three images of a person, the labels in turn."""
    label = np.arange(count) % 2
    noise = np.random.default_rng(0).normal(0, spread, count)
    logit = (2 * label - 1) * mean + noise
    return pd.DataFrame(
        {
            "image_id": [f"{number:06d}.jpg" for number in range(count)],
            "identity": np.arange(count) // 3,
            "label": label,
            "probability": 1 / (1 + np.exp(-logit)),
            "logit": logit,
        }
    )


def edit(path: Path, **changes: Any) -> dict[str, Any]:
    """Changes keys of a JSON file; those that become None go. Returns the result."""
    document = json.loads(path.read_text()) | changes
    document = {key: value for key, value in document.items() if value is not None}
    path.write_text(json.dumps(document))
    return document


@contextlib.contextmanager
def refused(message: str, code: ExitCode = ExitCode.INPUT_DATA):
    """Expects an error that matches, with this exit code."""
    with pytest.raises(UserError, match=message) as caught:
        yield caught
    assert caught.value.exit_code == code
