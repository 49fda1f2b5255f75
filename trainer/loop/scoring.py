"""Predictions over a split: every example once, never augmented."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

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
    batches: Iterable[dict[str, Any]],
    strategy: tf.distribute.Strategy,
    attributes: Sequence[str],
    between: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Runs a model over a split; calls `between` before each batch.

    Args:
      step: of the model.
      batches: dicts of `evaluation_dataset`, as `Dataset.iterate` yields them.
      strategy: of the step.
      attributes: names, in the order of the records.
      between: called before each batch.

    Returns:
      One row per example in the order of the shards: image_id, identity, label (0, 1),
      logit, probability (of label 1, at temperature 1), and the attributes
      (0, 1), each by its name.
    """
    columns = {IMAGE_ID: [], IDENTITY: [], LABELS: [], ATTRIBUTES: [], LOGIT: []}
    for batch in batches:
        between()
        images = split_batch(batch[IMAGES], strategy)
        real = batch[WEIGHTS].numpy() > 0
        columns[LOGIT].append(step(images).numpy()[real])
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
    return table.join(pd.DataFrame(values, columns=list(attributes)))
