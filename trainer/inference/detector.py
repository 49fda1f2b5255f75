"""The detector of faces: MTCNN, of the package `mtcnn` of the extra `align`.

Zhang, Zhang, Li, Qiao 2016, "Joint Face Detection and Alignment using Multitask
Cascaded Convolutional Networks": a small network proposes boxes at several scales, a
second and a third refine them, and the third adds the landmarks.

The package's weights are pickles, which can run code when they are read: their SHA-256
is compared before they are opened. Its own choice among the proposals compares each
with each, which takes gigabytes for a photo of a crowd: `_propose` replaces it.
"""

import functools
import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from support.errors import ExitCode, UserError, usage_error
from support.files import sha256_file

#: The weights inside of mtcnn 1.0.0, in the order of its three stages.
_SHA256 = {
    "pnet.lz4": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet.lz4": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet.lz4": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
_INSTALL = "Install the extra: pip install -e '.[align]'"

#: The paper's and the package's values: side of the first network's window, its steps,
#: the smallest face, the factor between scales, the least score.
_WINDOW, _STRIDE, _SMALLEST, _FACTOR, _LEAST = 12, 2, 20, 0.709, 0.6
#: Overlap (intersection over union) of proposals of one scale, and of all.
_OVERLAP, _OVERLAP_OF_ALL = 0.5, 0.7
#: Proposals of one scale, and of all.
_MOST = 500


@functools.cache
def detector() -> Any:
    """The detector, loaded once.

    Raises:
      UserError: the extra is not installed (exit 2), or its weights are not those that
        are known here (exit 5).
    """
    if importlib.util.find_spec("mtcnn") is None:
        raise usage_error("Finding faces needs mtcnn, not installed here.", _INSTALL)
    import mtcnn
    from mtcnn.stages import StageONet, StagePNet, StageRNet

    folder = Path(mtcnn.__file__).parent / "assets" / "weights"
    for name, expected in _SHA256.items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != expected:
            raise UserError(
                f"{path} is not the file of mtcnn 1.0.0; it is not opened.",
                "Install it again: pip install --force-reinstall mtcnn==1.0.0",
                ExitCode.INTEGRITY,
            )
    kinds = (StagePNet, StageRNet, StageONet)
    policy = keras.config.dtype_policy()  # a training may have left its own
    keras.config.set_dtype_policy("float32")
    try:
        with tf.device("CPU:0"):
            # By absolute paths: a bare name is looked for in the working directory.
            stages = [
                kind(weights=str(folder / name))
                for kind, name in zip(kinds, _SHA256, strict=True)
            ]
    finally:
        keras.config.set_dtype_policy(policy)
    stages[0] = functools.partial(_propose, stages[0].model)
    return mtcnn.MTCNN(stages, device="CPU:0")


def _propose(model: Any, images_normalized: np.ndarray, **_: Any) -> np.ndarray:
    """The first stage, for one image.

    Args:
      model: images -> offsets (1, rows, columns, 4) and scores (1, rows, columns, 2).
      images_normalized: (1, height, width, 3), -1..1.

    Returns:
      (at most `_MOST`, 6): number of the image, 0; a square's corners; score.
    """
    image = tf.cast(images_normalized, tf.float32)
    sides = np.array(image.shape[1:3])
    scale = _WINDOW / _SMALLEST
    boxes, scores = [np.zeros((0, 4))], [np.zeros(0)]
    while min(sides) * scale >= _WINDOW:
        smaller = tf.image.resize(image, (sides * scale).astype(int), "area")
        offsets, classes = (each.numpy()[0] for each in model(smaller))
        at = np.nonzero(classes[..., 1] > _LEAST)
        corner = 1 + _STRIDE * np.stack(at[::-1], axis=1)
        corners = np.concatenate([corner, corner + _WINDOW - 1], axis=1)
        of_scale = (corners + offsets[at] * (_WINDOW - 1)) / scale
        kept = _suppress(of_scale, classes[at][:, 1], _OVERLAP)
        boxes.append(of_scale[kept])
        scores.append(classes[at][kept, 1])
        scale *= _FACTOR
    box, score = np.concatenate(boxes), np.concatenate(scores)
    kept = _suppress(box, score, _OVERLAP_OF_ALL)
    first, last = np.split(box[kept], 2, axis=1)
    side = (last - first).max(axis=1, keepdims=True)
    first = (first + last - side) / 2
    number = np.zeros((len(kept), 1))
    return np.concatenate([number, first, first + side, score[kept, None]], axis=1)


def _suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> np.ndarray:
    """The indices of boxes (n, 4) that overlap none of a higher score too much."""
    boxes, scores = (tf.cast(each, tf.float32) for each in (boxes, scores))
    return tf.image.non_max_suppression(boxes, scores, _MOST, overlap).numpy()
