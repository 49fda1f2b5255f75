"""The report's gallery: which pictures are worth a look, beside their heat maps."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import simplejpeg

from support import page
from trainer.evaluation import calibration, metrics

#: Group -> what the report calls it.
HEADINGS = {
    "surest_right": "Surest and right",
    "surest_wrong": "Surest and wrong: the label or the model",
    "most_uncertain": "Most uncertain",
}
_SIZE = 8

#: From dark to bright in even steps, also for color-blind readers and in print.
_COLORS = matplotlib.colormaps["inferno"]
_OPACITY = 0.55
_LEGEND_STEPS = 9
_MIDDLE_GRAY = 128
# Rec. 601, the luma of JPEG.
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What the gallery shows.

    Attributes:
      jpegs: JPEG files by image id.
      overlays: the same pictures under their heat maps, JPEG files by image id.
      cells: (rows, columns) of the maps before they are stretched over the pictures;
        None without overlays.
    """

    jpegs: Mapping[str, bytes]
    overlays: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    cells: tuple[int, int] | None = None


def choose(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Chooses the rows worth looking at; ties go by image id.

    Args:
      predictions: columns `image_id`, `label` (0 or 1), `probability` (of label 1).

    Returns:
      `surest_right` (half of each label), `surest_wrong` and `most_uncertain`, each
      with at most eight rows, the most telling first.
    """
    surest = calibration.by_confidence(predictions)
    hit = (surest["probability"] >= metrics.THRESHOLD) == (surest["label"] == 1)
    right = surest[hit]
    halves = [right[right["label"] == label].head(_SIZE // 2) for label in (1, 0)]
    return {
        "surest_right": pd.concat(halves),
        "surest_wrong": surest[~hit].head(_SIZE),
        "most_uncertain": calibration.most_uncertain(predictions, _SIZE),
    }


def image_ids(predictions: pd.DataFrame) -> list[str]:
    """The ids of the chosen images, each once."""
    chosen = pd.concat(choose(predictions).values())
    return chosen["image_id"].drop_duplicates().tolist()


def overlay(picture: np.ndarray, heat: np.ndarray) -> bytes:
    """Lays a heat map over a picture without its colors, so that color means heat.

    Args:
      picture: (height, width, 3) uint8, 0..255.
      heat: (height, width) float, 0..1.

    Returns:
      A JPEG file of the picture's size.
    """
    return simplejpeg.encode_jpeg(_blend(picture @ _LUMA, heat), quality=85)


def legend() -> str:
    """The colors over middle gray from 0 to 1, as a CSS gradient."""
    heat = np.linspace(0, 1, _LEGEND_STEPS)
    colors = _blend(np.full_like(heat, _MIDDLE_GRAY), heat)
    steps = ", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in colors)
    return f"linear-gradient(to right, {steps})"


def groups(
    predictions: pd.DataFrame, pictures: Pictures | None
) -> list[dict[str, Any]]:
    """Heading and pictures of each group, as `data:` URIs with their prediction.

    Args:
      predictions: see `choose`.
      pictures: what is at hand; None or nothing: no groups.
    """
    if pictures is None or not pictures.jpegs:
        return []
    return [
        {
            "heading": HEADINGS[group],
            "pictures": [
                {
                    "image_id": row.image_id,
                    "source": _source(pictures.jpegs[row.image_id]),
                    "overlay": _source(pictures.overlays.get(row.image_id)),
                    "probability": row.probability,
                    "label": row.label,
                }
                for row in rows.itertuples()
                if row.image_id in pictures.jpegs
            ],
        }
        for group, rows in choose(predictions).items()
    ]


def _source(jpeg: bytes | None) -> str | None:
    return None if jpeg is None else page.data_uri("image/jpeg", jpeg)


def _blend(gray: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(...) gray, 0..255, and heat, 0..1, to (..., 3) uint8 RGB."""
    colors = 255 * _COLORS(heat)[..., :3]
    mixed = (1 - _OPACITY) * gray[..., None] + _OPACITY * colors
    return np.ascontiguousarray(np.round(mixed).astype(np.uint8))
