"""Folders of finished runs made by hand."""

import dataclasses
import json
from pathlib import Path

import pandas as pd

from schemas import celeba
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
