"""Photos with synthetic faces in them, for the tests that find faces."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from beam_pipelines.sample.faces import draw_face
from beam_pipelines.sample.people import draw_attributes, draw_person
from schemas import celeba

HEIGHT, WIDTH = celeba.ALIGNED_SIZE

needs_mtcnn = pytest.mark.skipif(
    importlib.util.find_spec("mtcnn") is None, reason="mtcnn is not installed"
)


def synthetic(seed: int) -> np.ndarray:
    """One of the faces of the sample, (218, 178, 3) uint8."""
    rng = np.random.default_rng(seed)
    person = draw_person(seed, rng)
    return draw_face(person, draw_attributes(person, rng) - {"Blurry"}, rng)


def photo(*faces: tuple[int, float, float, float, float], size=(360, 520)):
    """A gray photo with faces: seed, x and y of the center, scale, degrees."""
    canvas = Image.new("RGB", size[::-1], (120, 128, 122))
    for seed, x, y, scale, degrees in faces:
        image = Image.fromarray(synthetic(seed))
        image = image.resize((round(WIDTH * scale), round(HEIGHT * scale)))
        mask = Image.new("L", image.size, 255)
        image, mask = (
            each.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
            for each in (image, mask)
        )
        canvas.paste(
            image, (round(x - image.width / 2), round(y - image.height / 2)), mask
        )
    return np.asarray(canvas)
