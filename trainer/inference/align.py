"""Finds faces in photos, and brings them to where CelebA's aligned images have them.

The detector needs the extra `align`, see `trainer.inference.detector`.
"""

import threading
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from schemas import celeba
from support.images import resize
from trainer.inference.detector import detector

#: Mean positions (x, y) in CelebA's aligned images of both eyes, the nose's tip and the
#: corners of the mouth, the image's left ones first, and their standard deviations:
#: measured by this detector on 698 images of the train split (it missed 2 of 700). The
#: eyes vary least, for it is by them that CelebA was aligned.
POSITIONS = np.array(
    [(69.4, 111.3), (107.8, 111.3), (88.2, 135.3), (71.2, 152.4), (105.7, 152.4)]
)
_DEVIATIONS = np.array([(2.3, 1.3), (1.8, 1.4), (6.4, 4.0), (3.5, 2.1), (3.3, 1.9)])
_WEIGHTS = 1 / (_DEVIATIONS**2).sum(axis=1)

#: Larger photos are made smaller for the detector: their longer side has these pixels.
_LONGER_SIDE = 1024
#: One at a time: TensorFlow uses all cores for it, and it may take some 100 MB.
_DETECTING = threading.Lock()


class Face(NamedTuple):
    """A face in an image, in its pixels, counted from the upper left.

    Attributes:
      box: (x, y, width, height), inside of the image.
      score: the detector's confidence, 0.8 to 1.
      landmarks: (5, 2) float64, x and y in the order of `POSITIONS`.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray


def find_faces(image: np.ndarray) -> list[Face]:
    """Finds the faces of an image; their sides are at least 1/51 of its longer side.

    Args:
      image: (height, width, 3) uint8, RGB, its EXIF orientation applied.

    Returns:
      The faces, from left to right.

    Raises:
      UserError: see `detector`.
    """
    height, width = image.shape[:2]
    scale = min(1, _LONGER_SIDE / max(height, width))
    small = max(1, round(height * scale)), max(1, round(width * scale))
    with _DETECTING:
        pixels = image if small == (height, width) else resize(image, small)
        rows = detector().detect_faces(pixels, output_type="numpy", box_format="xyxy")
    # A row: number of the image, two corners, score, five x, five y.
    back = np.array([width / small[1], height / small[0]])
    faces = []
    for row in np.asarray(rows, np.float64):
        corners = (row[1:5].reshape(2, 2) + 0.5) * back - 0.5
        landmarks = (row[6:].reshape(2, 5).T + 0.5) * back - 0.5
        box = (*corners[0], *(corners[1] - corners[0]))
        faces.append(Face(tuple(map(float, box)), float(row[5]), landmarks))
    return sorted(faces, key=lambda face: face.box)


def aligned(image: np.ndarray, face: Face, shape: tuple[int, int]) -> np.ndarray:
    """Resamples an image so that a face is where CelebA's aligned images have it.

    Args:
      image: (height, width, 3) uint8, RGB.
      face: one of `find_faces(image)`.
      shape: (height, width) of the images that a model was trained on: CelebA's, or
        what they were resized to.

    Returns:
      (*shape, 3) uint8. What is outside of the image repeats its edge.
    """
    matrix, shift = _to_photo(face.landmarks, shape)
    step = max(1.0, np.linalg.norm(matrix, axis=0).min())
    # The part that is needed, with what the filters reach, as far as there is one.
    height, width = shape
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)]) - 0.5
    region = corners @ matrix.T + shift
    most = np.array(image.shape[1::-1])
    first = np.clip(np.floor(region.min(axis=0) - 3 * step), 0, most - 1).astype(int)
    last = np.clip(np.ceil(region.max(axis=0) + 3 * step), first + 1, most).astype(int)
    part = image[first[1] : last[1], first[0] : last[0]]
    # Made smaller first, or each pixel would be one of the many that it stands for.
    small = np.maximum(1, np.rint((last - first) / step)).astype(int)
    ratio = small / (last - first)
    part = resize(part, tuple(small[::-1].tolist()))
    matrix = ratio[:, None] * matrix
    shift = (shift - first + 0.5) * ratio - 0.5
    return np.stack(
        [
            ndimage.affine_transform(
                part[..., channel],
                matrix[::-1, ::-1],
                shift[::-1],
                shape,
                order=1,
                mode="nearest",
            )
            for channel in range(3)
        ],
        axis=-1,
    )


def _to_photo(
    landmarks: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The map from (x, y) in an aligned image to a photo's, as matrix and shift."""
    forward = similarity(landmarks, POSITIONS, _WEIGHTS)
    back = np.linalg.inv(forward[:, :2])
    ratio = np.array(celeba.ALIGNED_SIZE[::-1]) / shape[::-1]
    # aligned -> CelebA's size: (position + 0.5) * ratio - 0.5
    shift = back @ (0.5 * ratio - 0.5 - forward[:, 2])
    return back * ratio, shift


def similarity(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The rotation, scale and shift that map points onto others, by least squares.

    Umeyama 1991, "Least-squares estimation of transformation parameters between two
    point patterns", in two dimensions, where complex numbers give its closed form, and
    with weights: those of the inverse variances are the most likely ones.

    Args:
      source, target: (n, 2) x and y; not all points of `source` are the same.
      weights: (n,) of the squared distances, above 0.

    Returns:
      (2, 3) float64: target is nearly matrix[:, :2] @ source + matrix[:, 2].
    """
    points, goals = source @ (1, 1j), target @ (1, 1j)
    middle, goal = (np.average(each, weights=weights) for each in (points, goals))
    offsets = points - middle
    factor = np.vdot(offsets, weights * (goals - goal))
    factor /= np.vdot(offsets, weights * offsets).real
    shift = goal - factor * middle
    real, imaginary = factor.real, factor.imag
    return np.array([(real, -imaginary, shift.real), (imaginary, real, shift.imag)])
