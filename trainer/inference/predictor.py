"""A run's best model, for images of any size."""

import collections
import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tensorflow as tf
from pydantic import Field

from support.documents import Document, read_json
from support.images import BadImage
from support.pool import cores, thread_map
from trainer import augmentation, models
from trainer.evaluation import calibration, metrics
from trainer.inference import images
from trainer.inference.images import InputImage, Source
from trainer.runs import METRICS, provenance
from trainer.runs.record import checked, read_run

COLUMNS = ["image_id", "probability", "label", "abstained"]

#: Images that a thread prepares together: those of one shape are resized at once.
_TOGETHER = 8
#: Larger images (height * width * 3) are resized by themselves, and still larger ones
#: by one thread at a time: in float32 one may take 600 MB.
_LARGE, _HUGE = 1_500_000, 12_000_000


class Predictor:
    """A run's best model, ready for images.

    For example:

        from trainer.inference.images import find
        from trainer.predict import Predictor

        predictor = Predictor("runs/NAME")
        table = predictor.predict(["a.jpg", "b.png"])
        print(table[["image_id", "probability", "abstained"]])
        table = predictor.predict(find(["photos", "faces.zip"]))
        [probability] = predictor.predict(pixels)["probability"]

    Attributes:
      attribute: the perceived attribute that label 1 stands for.
      label_names: in words, of the labels 0 and 1.
      size: side of the model's input, pixels.
      temperature: what the logits are divided by.
      abstain: half the width of the band around 0.5 without a decision.
      facts: these and others, as values for JSON files: what the model is.
    """

    def __init__(self, run_dir: str | os.PathLike, abstain: float | None = None):
        """Loads the model by its name and weights; no code is read from the run.

        Args:
          run_dir: folder of a finished run.
          abstain: 0..0.5; None is what the run's own test used, else
            `calibration.ABSTAIN`.

        Raises:
          UserError: not a finished run (exit 3); a damaged or foreign file (exit 5).
        """
        run = read_run(run_dir)
        self._model = models.load(run_dir)
        self._one_huge = threading.Lock()
        self.attribute: str = run["attribute"]
        positive = self.attribute.replace("_", " ")
        self.label_names: tuple[str, str] = (f"not {positive}", positive)
        self.size: int = run["input_size"]
        self.temperature: float = run.get("temperature", 1.0)
        self.abstain = _band(Path(run_dir)) if abstain is None else abstain
        self.facts: dict[str, Any] = {
            "attribute": self.attribute,
            "probability_of": f"perceived {positive}",
            "label_names": {str(n): name for n, name in enumerate(self.label_names)},
            "architecture": run["model"],
            "input_size": self.size,
            "threshold": metrics.THRESHOLD,
            "temperature": self.temperature,
            "abstain": self.abstain,
            "sha256": provenance.model_sha256(run),
            "manifest_digest": run.get("manifest_digest"),
        }

    def predict(
        self,
        sources: Source | Iterable[Source],
        batch_size: int = 64,
        progress: Callable[[int], object] = lambda count: None,
    ) -> pd.DataFrame:
        """Predicts images of any size, resized to the model's input.

        Threads read and decode ahead of the model; only few images are in memory.

        Args:
          sources: one or many of: the path of a JPEG or PNG file; the bytes of one;
            pixels (height, width, 3) uint8, 0..255, RGB, or (height, width) gray; what
            `images.find` found in directories, zip files and patterns.
          batch_size: images per step; changes no result.
          progress: called with the number of images that were done since the last call.

        Returns:
          One row per image, in the order given: image_id (the file's name; where
          several have one name, the path as given; `[n]` for the nth that has none),
          probability (of label 1, 0..1; NaN if unreadable), label (1 if the probability
          is at least 0.5, else 0; <NA> if unreadable), abstained (whether the
          probability is less than `abstain` away from 0.5), error (why it is
          unreadable, "" if it is not).

        Raises:
          TypeError, ValueError: a source is of another kind or shape.
        """
        if _is_single(sources):
            sources = [sources]
        found, errors, logits = [], [], []
        batch: list[np.ndarray] = []
        for image, resized in self._prepared(sources, batch_size):
            found.append(image)
            if isinstance(resized, str):
                errors.append(resized)
                progress(1)
                continue
            errors.append("")
            batch.append(resized)
            if len(batch) == batch_size:
                logits.append(self._model.predict_on_batch(np.stack(batch)))
                progress(len(batch))
                batch = []
        if batch:
            logits.append(self._model.predict_on_batch(np.stack(batch)))
            progress(len(batch))
        return self._table(images.image_ids(found), errors, logits)

    def _table(
        self, ids: list[str], errors: list[str], logits: list[np.ndarray]
    ) -> pd.DataFrame:
        """The rows: `logits` are those of the readable images, in batches."""
        readable = np.array([not error for error in errors], bool)
        probability = np.full(len(ids), np.nan)
        if logits:
            probability[readable] = calibration.probabilities(
                np.concatenate(logits)[:, 0], self.temperature
            )
        label = pd.array((probability >= metrics.THRESHOLD).astype("int64"), "Int64")
        label[~readable] = pd.NA
        abstained = readable & ~calibration.covered(probability, self.abstain)
        columns = (ids, probability, label, abstained)
        return pd.DataFrame(
            dict(zip(COLUMNS, columns, strict=True)) | {"error": errors}
        )

    def _prepared(
        self, sources: Iterable[Source], batch_size: int
    ) -> Iterator[tuple[InputImage, np.ndarray | str]]:
        """Each image with its resized pixels, or with why it is unreadable."""
        found = (
            images.from_source(source, number) for number, source in enumerate(sources)
        )
        groups = _groups(found, min(_TOGETHER, batch_size))
        # While the model computes, the threads make the next batch.
        ahead = cores() + -(-batch_size // _TOGETHER)
        for prepared in thread_map(self._prepare, groups, ahead):
            yield from prepared

    def _prepare(
        self, group: Sequence[InputImage]
    ) -> list[tuple[InputImage, np.ndarray | str]]:
        prepared: list[Any] = [None] * len(group)
        by_shape = collections.defaultdict(list)
        for number, image in enumerate(group):
            try:
                pixels = image.load()
            except BadImage as error:
                prepared[number] = f"{error.reason}: {error.detail}"
                continue
            if pixels.size > _LARGE:
                huge = pixels.size > _HUGE
                with self._one_huge if huge else contextlib.nullcontext():
                    prepared[number] = self._resize([pixels])[0]
            else:
                by_shape[pixels.shape].append((number, pixels))
        for same in by_shape.values():
            numbers, pixels = zip(*same, strict=True)
            for number, resized in zip(numbers, self._resize(pixels), strict=True):
                prepared[number] = resized
        return list(zip(group, prepared, strict=True))

    def _resize(self, same: Sequence[np.ndarray]) -> np.ndarray:
        """Images of one shape to (n, size, size, 3) float32, 0..255."""
        # Not the compiled warp: that would compile again for each shape. Not on a GPU
        # either: its memory is the model's.
        with tf.device("CPU:0"):
            batch = tf.constant(np.stack(same))
            return augmentation.resize(batch, self.size).numpy()


def _is_single(sources: Source | Iterable[Source]) -> bool:
    if isinstance(sources, np.ndarray):
        return sources.ndim in (2, 3)  # otherwise many: pixels, or paths
    return isinstance(sources, str | os.PathLike | bytes | InputImage)


def _groups(found: Iterable[InputImage], size: int) -> Iterator[list[InputImage]]:
    """Cuts a sequence into lists of `size`; the last may be shorter."""
    found = iter(found)
    while group := list(itertools.islice(found, size)):
        yield group


class _Abstention(Document, total=False):
    abstain: Annotated[float, Field(ge=0, le=0.5)]


class _Metrics(Document, total=False):
    abstention: _Abstention


def _band(run_dir: Path) -> float:
    """The band that the run's own test used, else the usual one."""
    if not (run_dir / METRICS).exists():  # of an older version
        return calibration.ABSTAIN
    found = checked(run_dir, METRICS, read_json, _Metrics)
    return found.get("abstention", {}).get("abstain", calibration.ABSTAIN)
