"""A run's best model, for images of any size."""

import contextlib
import functools
import itertools
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from schemas import celeba
from support.errors import usage_error
from support.images import BadImage
from support.pool import cores, thread_map
from trainer import augmentation, models
from trainer.evaluation import calibration, metrics
from trainer.evaluation.loading import read_metrics
from trainer.inference import images
from trainer.inference.align import Face, aligned, find_faces
from trainer.inference.detector import detector
from trainer.inference.images import InputImage, Source
from trainer.runs import METRICS, provenance
from trainer.runs.record import read_run, require

COLUMNS = ["image_id", "probability", "label", "abstained"]
#: More of them where faces are looked for.
FACE_COLUMNS = ["face", "x", "y", "width", "height", "score"]
NO_FACE = "no face found"

#: Images that a thread prepares together: those of one shape are resized at once.
_TOGETHER = 8
#: Larger images (height * width * 3) are resized by themselves, and still larger ones
#: by one thread at a time: in float32 one may take 600 MB.
_LARGE, _HUGE = 1_500_000, 12_000_000
#: Aspects that differ by a smaller factor look the same.
_SAME_ASPECT = 1.05


class AspectWarning(UserWarning):
    """Images of another aspect than the training images are distorted to it."""


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
      image_shape: (height, width) of the images that it was trained on.
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
        require(run_dir, run, ["data"])
        self.model = models.load(run_dir)
        self._one_huge = threading.Lock()
        self.attribute: str = run["attribute"]
        positive = self.attribute.replace("_", " ")
        self.label_names: tuple[str, str] = (f"not {positive}", positive)
        self.size: int = run["input_size"]
        height, width, _ = run["data"]["image_shape"]
        self.image_shape: tuple[int, int] = height, width
        self._dataset = run["data"]["dataset"]
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
        align: bool = False,
    ) -> pd.DataFrame:
        """Predicts images of any size, or the faces in them.

        Images are resized to the model's input, whatever they show; faces are first
        brought to where the training images have them.

        Threads read and decode ahead of the model; only few images are in memory.
        Transparent images are put on white.

        Args:
          sources: one or many of: the path of a JPEG or PNG file, or of a directory or
            zip file of some; the bytes of a file; pixels (height, width, 3) uint8,
            0..255, RGB, or (height, width) gray; what `images.find` found.
          batch_size: images per step; changes no result.
          progress: called with the number of images that were done since the last call.
          align: predict each face that is found in an image.

        Returns:
          One row per image, in the order given: image_id (the file's name; where
          several have one name, the path as given; `[n]` for the nth that has none),
          probability (of label 1, 0..1; NaN if unreadable), label (1 if the probability
          is at least 0.5, else 0; <NA> if unreadable), abstained (whether the
          probability is less than `abstain` away from 0.5), error (why it is
          unreadable, "" if it is not), transparent (whether it is).

          With `align` one row per face, from left to right, and one, with `NO_FACE` as
          its error, for an image without any. More columns: face (1, 2, ... in its
          image, 0 if there is none), x, y, width and height of its box (pixels of the
          image, its EXIF orientation applied) and score (the detector's confidence,
          0.8..1), all <NA> or NaN if there is no face, and image (its number among the
          images, from 0).

        Warns:
          AspectWarning: without `align`, images are of another aspect than those that
            the model was trained on.

        Raises:
          TypeError, ValueError: a source is of another kind or shape.
          UserError: of `align` only, see `detector`; the model was trained on
            another data set than CelebA (exit 2).
        """
        if align:
            self._require_celeba()
            detector()
        if _is_single(sources):
            sources = [sources]
        prepared = self._prepared(sources, batch_size, align)
        done: list[_Prepared] = []
        logits = [np.zeros(0, np.float32)]
        while batch := list(itertools.islice(prepared, batch_size)):
            pixels = [each.pixels for each in batch if not each.error]
            if pixels:
                logits.append(self.model.predict_on_batch(np.stack(pixels))[:, 0])
            done += [each._replace(pixels=None) for each in batch]
            progress(sum(each.face_number <= 1 for each in batch))
        if not align:
            self._warn_of_aspects(done)
        return self._table(done, np.concatenate(logits), align)

    def _table(
        self, done: Sequence["_Prepared"], logits: np.ndarray, align: bool
    ) -> pd.DataFrame:
        readable = np.array([not each.error for each in done], bool)
        probability = np.full(len(done), np.nan)
        probability[readable] = calibration.probabilities(logits, self.temperature)
        label = pd.array((probability >= metrics.THRESHOLD).astype("int64"), "Int64")
        label[~readable] = pd.NA
        covered = calibration.covered(probability, self.abstain)
        starts = [each.face_number <= 1 for each in done]
        ids = images.image_ids(
            [each.image for each in itertools.compress(done, starts)]
        )
        number = np.cumsum(starts) - 1
        columns = {
            "image_id": [ids[n] for n in number],
            "probability": probability,
            "label": label,
            "abstained": readable & ~covered,
            "error": [each.error for each in done],
            "transparent": [each.transparent for each in done],
        }
        if align:
            columns |= _face_columns(done) | {"image": number}
        return pd.DataFrame(columns)

    def _require_celeba(self) -> None:
        """Refuses to align faces for a model that never saw CelebA's."""
        if not self.is_celeba():
            raise usage_error(
                "--align brings faces to where CelebA's aligned images have them; this "
                f"model was trained on {self._dataset['name']}.",
                "Predict without it, images such as the model was trained on.",
            )

    def _warn_of_aspects(self, done: Sequence["_Prepared"]) -> None:
        count = sum(each.other_aspect for each in done)
        if count:
            height, width = self.image_shape
            remedy = " Photos need --align, in Python align=True: it aligns faces."
            warnings.warn(
                f"{count:,} of {len(done):,} images have another aspect than the "
                f"training images ({width}x{height}), and were distorted to it."
                f"{remedy if self.is_celeba() else ''}",
                AspectWarning,
                stacklevel=3,
            )

    def is_celeba(self) -> bool:
        """Tells whether the training images are CelebA's, or in its layout."""
        return self._dataset["key"] == celeba.CELEBA.about.key

    def _prepared(
        self, sources: Iterable[Source], batch_size: int, align: bool
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
        prepare = functools.partial(self._prepare, align=align)
        for prepared in thread_map(prepare, groups, ahead):
            yield from prepared

    def _prepare(self, group: Sequence[InputImage], align: bool) -> list["_Prepared"]:
        prepared: list[_Prepared] = []
        loaded = map(self._load, group)
        if align:
            loaded = itertools.chain.from_iterable(map(self._faces, loaded))
        for is_readable, run in itertools.groupby(loaded, _key):
            same = list(run)
            if is_readable:
                resized = self._resize([each.pixels for each in same])
                pairs = zip(same, resized, strict=True)
                same = [each._replace(pixels=pixels) for each, pixels in pairs]
            prepared += same
        return prepared

    def _resize(self, same: Sequence[np.ndarray]) -> np.ndarray:
        """Images of one shape to (n, size, size, 3) float32, 0..255."""
        # Not the compiled warp: that would compile again for each shape. Not on a GPU
        # either: its memory is the model's.
        with self._turn(same[0]), tf.device("CPU:0"):
            return augmentation.resize(tf.constant(np.stack(same)), self.size).numpy()

    def _turn(self, pixels: np.ndarray) -> contextlib.AbstractContextManager:
        """Allows only one thread at a time to compute with a huge image."""
        return self._one_huge if pixels.size > _HUGE else contextlib.nullcontext()

    def _load(self, image: InputImage) -> "_Prepared":
        try:
            pixels = image.load()
        except BadImage as error:
            return _Prepared(image, error=str(error))
        transparent = pixels.shape[2] == 4
        other = self.is_other_aspect(*pixels.shape[:2])
        pixels = images.on_white(pixels)
        return _Prepared(image, pixels, "", transparent, other)

    def is_other_aspect(self, height: int, width: int) -> bool:
        """Tells whether images of a size look distorted to the model."""
        shapes = [self.image_shape]
        if self.is_celeba():
            shapes.append(celeba.ALIGNED_SIZE)  # which the build may have resized
        factors = [height / width * shape[1] / shape[0] for shape in shapes]
        return all(max(each, 1 / each) > _SAME_ASPECT for each in factors)

    def _faces(self, loaded: "_Prepared") -> list["_Prepared"]:
        """The faces of an image, each an image as the model was trained on."""
        if loaded.error:
            return [loaded]
        with self._turn(loaded.pixels):
            return [
                loaded._replace(
                    pixels=aligned(loaded.pixels, face, self.image_shape),
                    face=face,
                    face_number=number,
                )
                for number, face in enumerate(find_faces(loaded.pixels), 1)
            ] or [loaded._replace(pixels=None, error=NO_FACE)]


class _Prepared(NamedTuple):
    image: InputImage
    pixels: np.ndarray | None = None
    error: str = ""
    transparent: bool = False
    other_aspect: bool = False
    face: Face | None = None
    face_number: int = 0


def _face_columns(done: Sequence[_Prepared]) -> dict[str, Any]:
    boxes = [each.face.box if each.face else (np.nan,) * 4 for each in done]
    rounded = np.rint(np.reshape(boxes, (-1, 4)))
    columns = [pd.array(column, "Int64") for column in rounded.T]
    numbers = [each.face_number for each in done]
    scores = [each.face.score if each.face else np.nan for each in done]
    return dict(zip(FACE_COLUMNS, [numbers, *columns, scores], strict=True))


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
