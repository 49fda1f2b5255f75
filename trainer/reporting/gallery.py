"""The report's gallery: which images are worth a look, next to their heat maps."""

import dataclasses
from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
import simplejpeg

from trainer.evaluation import calibration, metrics

_SIZE = 8

#: From dark to bright in even steps, also for color-blind readers and in print.
_COLORS = matplotlib.colormaps["inferno"]
_OPACITY = 0.55
# Rec. 601, the luma of JPEG.
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclasses.dataclass(frozen=True)
class Images:
    """What the gallery shows.

    Attributes:
      jpegs: JPEG files by image id.
      overlays: the same images under their heat maps, JPEG files by image id.
      cells: (rows, columns) of the maps before they are resized to the images; None
        without overlays.
    """

    jpegs: Mapping[str, bytes]
    overlays: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    cells: tuple[int, int] | None = None


def choose(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Chooses the rows worth looking at; ties go by image id.

    Args:
      predictions: columns `image_id`, `label` (0 or 1), `probability` (of label 1).

    Returns:
      Heading -> at most eight rows, the most telling first: confident and correct
      (half of each label), confident and wrong, uncertain.
    """
    rows = calibration.by_confidence(predictions)
    is_correct = (rows["probability"] >= metrics.THRESHOLD) == (rows["label"] == 1)
    correct = rows[is_correct]
    halves = [correct[correct["label"] == label].head(_SIZE // 2) for label in (1, 0)]
    return {
        "Most confident and correct": pd.concat(halves),
        "Most confident and wrong: the label or the model": rows[~is_correct].head(
            _SIZE
        ),
        "Most uncertain": calibration.most_uncertain(predictions, _SIZE),
    }


def image_ids(predictions: pd.DataFrame) -> list[str]:
    """The ids of the chosen images, each once."""
    chosen = pd.concat(choose(predictions).values())
    return chosen["image_id"].drop_duplicates().tolist()


def overlay(image: np.ndarray, heat: np.ndarray) -> bytes:
    """Lays a heat map over an image without its colors, so that color means heat.

    Args:
      image: (height, width, 3) uint8, 0..255.
      heat: (height, width) float, 0..1.

    Returns:
      A JPEG file of the image's size.
    """
    gray = (image @ _LUMA)[..., None]
    mixed = (1 - _OPACITY) * gray + _OPACITY * 255 * _COLORS(heat)[..., :3]
    pixels = np.ascontiguousarray(np.round(mixed).astype(np.uint8))
    return simplejpeg.encode_jpeg(pixels, quality=85)
