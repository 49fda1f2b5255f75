"""Predictions over a split: every example once, never augmented."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from trainer.data import Dataset
from trainer.data.input_pipeline import (
    ATTRIBUTES,
    IDENTITY,
    IMAGE_ID,
    IMAGES,
    LABELS,
    WEIGHTS,
)
from trainer.evaluation import calibration
from trainer.evaluation.results import LOGIT
from trainer.loop.steps import EvaluationStep, split_batch


def predict_split(
    step: EvaluationStep,
    dataset: Dataset,
    split: str,
    batches: Iterable[dict[str, Any]],
    between: Callable[[], None] = lambda: None,
    seconds: list[float] | None = None,
) -> pd.DataFrame:
    """Runs a model over a split.

    Args:
      step: of the model.
      dataset: with the split.
      split: its name.
      batches: dicts of its `evaluation_dataset`.
      between: called before each batch.
      seconds: takes the time of each step, from the batch to its logits.

    Returns:
      One row per example in the order of the shards: image_id, identity, label (0, 1),
      logit, probability (of label 1, at temperature 1), and the attributes
      (0, 1), each by its name.

    Raises:
      UserError: see `Dataset.iterate`.
    """
    columns = {IMAGE_ID: [], IDENTITY: [], LABELS: [], ATTRIBUTES: [], LOGIT: []}
    for batch in dataset.iterate(split, batches):
        between()
        images = split_batch(batch[IMAGES], step.strategy)
        started = time.perf_counter()
        logits = step(images).numpy()
        if seconds is not None:
            seconds.append(time.perf_counter() - started)
        real = batch[WEIGHTS].numpy() > 0
        columns[LOGIT].append(logits[real])
        for name in (IMAGE_ID, IDENTITY, LABELS, ATTRIBUTES):
            columns[name].append(batch[name].numpy()[real])
    logits = np.concatenate(columns[LOGIT]).astype("float64")
    table = pd.DataFrame(
        {
            "image_id": [name.decode() for name in np.concatenate(columns[IMAGE_ID])],
            "identity": np.concatenate(columns[IDENTITY]),
            "label": np.concatenate(columns[LABELS]).astype(int),
            LOGIT: logits,
            "probability": calibration.probabilities(logits),
        }
    )
    values = np.concatenate(columns[ATTRIBUTES]).astype(int)
    return table.join(pd.DataFrame(values, columns=dataset.manifest.attributes))
