"""Reading a dataset folder: opened and checked, then streamed by tf.data."""

from trainer.data.dataset import Dataset, open_dataset
from trainer.data.input_pipeline import evaluation_dataset, train_dataset

__all__ = ["Dataset", "evaluation_dataset", "open_dataset", "train_dataset"]
