"""Predictions over a split: every example once, never augmented."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import tensorflow as tf

from trainer import input_pipeline
from trainer.input_pipeline import IDENTITY, IMAGE_ID, IMAGES, LABELS, WEIGHTS, Dataset
from trainer.steps import EvaluationStep, split_batch

LOGIT = "logit"


def predict_split(
    step: EvaluationStep,
    dataset: Dataset,
    split: str,
    batch_size: int,
    strategy: tf.distribute.Strategy,
    between: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Runs a model over a split; calls `between` before each batch.

    Returns:
      One row per example in the order of the shards: image_id, identity, label (0, 1),
      logit, probability (of label 1).
    """
    batches = input_pipeline.evaluation_batches(dataset, split, batch_size)
    columns = {IMAGE_ID: [], IDENTITY: [], LABELS: [], LOGIT: []}
    for batch in batches:
        between()
        images = split_batch(batch[IMAGES], strategy)
        real = batch[WEIGHTS].numpy() > 0
        columns[LOGIT].append(step(images).numpy()[real])
        for name in (IMAGE_ID, IDENTITY, LABELS):
            columns[name].append(batch[name].numpy()[real])
    logits = np.concatenate(columns[LOGIT]).astype("float64")
    return pd.DataFrame(
        {
            "image_id": [name.decode() for name in np.concatenate(columns[IMAGE_ID])],
            "identity": np.concatenate(columns[IDENTITY]),
            "label": np.concatenate(columns[LABELS]).astype(int),
            LOGIT: logits,
            "probability": 1 / (1 + np.exp(-logits)),
        }
    )
