"""A run's best model, for images of any size."""

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from support.images import BadImage
from support.pool import cores, thread_map
from trainer import augmentation, models
from trainer.evaluation import calibration, metrics
from trainer.evaluation.loading import read_metrics
from trainer.inference import images
from trainer.inference.images import InputImage, Source
from trainer.runs import METRICS, provenance
from trainer.runs.record import read_run

COLUMNS = ["image_id", "probability", "label", "abstained"]

#: Images that a thread prepares together: those of one shape are resized at once.
_TOGETHER = 8
#: Larger images (height * width * 3) are resized by themselves, and still larger ones
#: by one thread at a time: in float32 one may take 600 MB.
_LARGE, _HUGE = 1_500_000, 12_000_000


class Predictor:
    """A run's best model, ready for images.

    For example:

        from trainer.predict import Predictor

        predictor = Predictor("runs/NAME")
        table = predictor.predict(["a.jpg", "photos", "faces.zip"])
        print(table[["image_id", "probability", "abstained"]])
        [probability] = predictor.predict(pixels)["probability"]

    Attributes:
      model: resized images to logits, see `models`.
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
          run_dir: directory of a finished run.
          abstain: 0..0.5; None is what the run's own test used, else
            `calibration.ABSTAIN`.

        Raises:
          UserError: not a finished run (exit 3); a damaged or foreign file (exit 5).
        """
        run = read_run(run_dir)
        self.model = models.load(run_dir)
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
        Transparent images are put on white.

        Args:
          sources: one or many of: the path of a JPEG or PNG file, or of a directory or
            zip file of some; the bytes of a file; pixels (height, width, 3) uint8,
            0..255, RGB, or (height, width) gray; what `images.find` found.
          batch_size: images per step; changes no result.
          progress: called with the number of images that were done since the last call.

        Returns:
          One row per image, in the order given: image_id (the file's name; where
          several have one name, the path as given; `[n]` for the nth that has none),
          probability (of label 1, 0..1; NaN if unreadable), label (1 if the probability
          is at least 0.5, else 0; <NA> if unreadable), abstained (whether the
          probability is less than `abstain` away from 0.5), error (why it is
          unreadable, "" if it is not), transparent (whether it is).

        Raises:
          TypeError, ValueError: a source is of another kind or shape.
        """
        if _is_single(sources):
            sources = [sources]
        prepared = self._prepared(sources, batch_size)
        done: list[_Prepared] = []
        logits = [np.zeros(0, np.float32)]
        while batch := list(itertools.islice(prepared, batch_size)):
            pixels = [each.pixels for each in batch if not each.error]
            if pixels:
                logits.append(self.model.predict_on_batch(np.stack(pixels))[:, 0])
            done += [each._replace(pixels=None) for each in batch]
            progress(len(batch))
        readable = np.array([not each.error for each in done], bool)
        probability = np.full(len(done), np.nan)
        probability[readable] = calibration.probabilities(
            np.concatenate(logits), self.temperature
        )
        label = pd.array((probability >= metrics.THRESHOLD).astype("int64"), "Int64")
        label[~readable] = pd.NA
        covered = calibration.covered(probability, self.abstain)
        return pd.DataFrame(
            {
                "image_id": images.image_ids([each.image for each in done]),
                "probability": probability,
                "label": label,
                "abstained": readable & ~covered,
                "error": [each.error for each in done],
                "transparent": [each.transparent for each in done],
            }
        )

    def _prepared(
        self, sources: Iterable[Source], batch_size: int
    ) -> Iterator["_Prepared"]:
        found = (
            image
            for number, source in enumerate(sources)
            for image in images.from_source(source, number)
        )
        together = min(_TOGETHER, batch_size)
        groups = iter(lambda: list(itertools.islice(found, together)), [])
        # While the model computes, the threads make the next batch.
        ahead = cores() + -(-batch_size // together)
        for prepared in thread_map(self._prepare, groups, ahead):
            yield from prepared

    def _prepare(self, group: Sequence[InputImage]) -> list["_Prepared"]:
        prepared: list[_Prepared] = []
        for is_readable, run in itertools.groupby(map(_load, group), _key):
            same = list(run)
            if is_readable:
                resized = self._resize([each.pixels for each in same])
                pairs = zip(same, resized, strict=True)
                same = [each._replace(pixels=pixels) for each, pixels in pairs]
            prepared += same
        return prepared

    def _resize(self, same: Sequence[np.ndarray]) -> np.ndarray:
        """Images of one shape to (n, size, size, 3) float32, 0..255."""
        huge = same[0].size > _HUGE
        # Not the compiled warp: that would compile again for each shape. Not on a GPU
        # either: its memory is the model's.
        with self._one_huge if huge else contextlib.nullcontext(), tf.device("CPU:0"):
            return augmentation.resize(tf.constant(np.stack(same)), self.size).numpy()


class _Prepared(NamedTuple):
    image: InputImage
    pixels: np.ndarray | None = None
    error: str = ""
    transparent: bool = False


def _load(image: InputImage) -> _Prepared:
    try:
        pixels = image.load()
    except BadImage as error:
        return _Prepared(image, error=str(error))
    return _Prepared(image, images.on_white(pixels), transparent=pixels.shape[2] == 4)


def _key(loaded: _Prepared) -> tuple | None:
    """What is equal for neighbors that are resized together; None: unreadable."""
    if loaded.pixels is None:
        return None
    is_large = loaded.pixels.size > _LARGE
    return loaded.pixels.shape, loaded.image.path if is_large else ""


def _is_single(sources: Source | Iterable[Source]) -> bool:
    if isinstance(sources, np.ndarray):
        return sources.ndim in (2, 3)  # otherwise many: pixels, or paths
    return isinstance(sources, str | os.PathLike | bytes | InputImage)


def _band(run_dir: Path) -> float:
    """The band that the run's own test used, else the usual one."""
    found = read_metrics(run_dir) if (run_dir / METRICS).exists() else {}
    return found.get("abstention", {}).get("abstain", calibration.ABSTAIN)
