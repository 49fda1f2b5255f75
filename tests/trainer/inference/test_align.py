"""Faces found in photos of synthetic ones, and brought to CelebA's positions."""

import importlib.util
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from schemas import celeba
from support.errors import ExitCode, UserError
from support.images import resize
from tests.trainer.inference.photos import needs_mtcnn, photo
from trainer.inference import align
from trainer.inference.detector import detector

HEIGHT, WIDTH = celeba.ALIGNED_SIZE


def moved(points: np.ndarray, scale: float, degrees: float, shift) -> np.ndarray:
    turn = scale * np.exp(1j * np.radians(degrees))
    points = (points @ (1, 1j)) * turn + complex(*shift)
    return np.stack([points.real, points.imag], axis=-1)


def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth waves that no symmetry maps onto themselves, (*x.shape, 3) uint8."""
    waves = [np.sin(x / 17 + y / 31), np.cos(x / 23 - y / 13), np.sin(y / 19 + 1)]
    return np.rint(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def face_at(landmarks: np.ndarray) -> align.Face:
    return align.Face((0, 0, 1, 1), 1, landmarks)


@pytest.mark.parametrize("degrees", [0, 30, -90, 180])
def test_similarity_is_recovered_exactly(degrees):
    weights = np.array([3, 1, 0.5, 2, 1])
    target = moved(align.POSITIONS, 0.3, degrees, (500, -20))
    matrix = align.similarity(align.POSITIONS, target, weights)
    assert align.POSITIONS @ matrix[:, :2].T + matrix[:, 2] == pytest.approx(target)
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(0.09)


def test_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 2, 5)
    target = align.POSITIONS + rng.normal(0, 5, (5, 2))
    matrix = align.similarity(align.POSITIONS, target, weights)

    def loss(values):
        a, b, x, y = values
        moved = align.POSITIONS @ np.array([(a, b), (-b, a)]) + (x, y)
        return (weights * ((moved - target) ** 2).sum(axis=1)).sum()

    best = np.array([matrix[0, 0], matrix[1, 0], *matrix[:, 2]])
    least = loss(best)
    for step in (*np.eye(4), *-np.eye(4)):
        assert loss(best + 1e-3 * step) > least


def test_aligned_face_at_the_positions_keeps_the_image():
    image = pattern(*np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)))
    face = face_at(align.POSITIONS)
    same = align.aligned(image, face, (HEIGHT, WIDTH))
    assert np.abs(same.astype(int) - image).max() <= 1
    # A dataset that was built with --image_size: resized, its aspect not kept.
    small = align.aligned(image, face, (64, 64))
    assert np.abs(small.astype(int) - resize(image, (64, 64))).mean() < 1.5


@pytest.mark.parametrize(("scale", "degrees"), [(1, 0), (0.5, -20), (2.5, 100)])
def test_aligned_undoes_scale_rotation_and_shift(scale, degrees):
    side, center = round(2 * HEIGHT * scale), np.array([90, 110])
    grid = np.stack(np.meshgrid(*[np.arange(side, dtype=np.float32)] * 2), axis=-1)
    back = moved(grid - side / 2, 1 / scale, -degrees, center)
    photo = pattern(back[..., 0], back[..., 1])
    landmarks = moved(align.POSITIONS - center, scale, degrees, [side / 2] * 2)
    found = align.aligned(photo, face_at(landmarks), (HEIGHT, WIDTH))
    expected = pattern(*np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)))
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).mean() < 2


def test_aligned_repeats_the_edge_outside_of_the_photo():
    image = np.full((100, 80, 3), 200, np.uint8)
    image[0] = 10
    face = face_at(align.POSITIONS - (0, 60))
    found = align.aligned(image, face, (HEIGHT, WIDTH))
    assert (found[:60] == 10).all()
    assert (found[62:] == 200).all()


def test_aligned_averages_what_one_pixel_stands_for():
    """Stripes of one pixel, seen from far away, are gray."""
    image = np.zeros((1500, 1500, 3), np.uint8)
    image[::2] = 255
    face = face_at(align.POSITIONS * 6)
    found = align.aligned(image, face, (HEIGHT, WIDTH)).astype(int)
    assert np.abs(found[5:-5, 5:-5] - 127).max() < 8


@needs_mtcnn
def test_faces_are_found_and_aligned():
    image = photo((3, 130, 170, 1, 15), (4, 380, 190, 1.2, -25))
    faces = align.find_faces(image)
    assert len(faces) == 2
    for face, center, scale in zip(faces, (130, 380), (1, 1.2), strict=True):
        x, _, width, _ = face.box
        assert abs(x + width / 2 - center) < 25
        assert 60 * scale < width < 130 * scale
        assert 0.8 < face.score <= 1
        [again] = align.find_faces(align.aligned(image, face, (HEIGHT, WIDTH)))
        assert np.abs(again.landmarks - align.POSITIONS).mean() < 5
    assert align.find_faces(np.full((300, 200, 3), 90, np.uint8)) == []
    assert align.find_faces(np.zeros((1, 1, 3), np.uint8)) == []


@pytest.mark.slow
@needs_mtcnn
def test_large_photo_is_made_smaller_for_the_detector():
    small = photo((3, 130, 170, 1, 0))
    large = np.asarray(Image.fromarray(small).resize((5200, 3600)))
    [face], [same] = align.find_faces(large), align.find_faces(small)
    assert np.abs(face.landmarks / 10 - same.landmarks).max() < 4
    assert np.array(face.box) / 10 == pytest.approx(np.array(same.box), abs=8)


@needs_mtcnn
def test_changed_weights_are_not_opened(tmp_path, monkeypatch):
    import mtcnn

    package = tmp_path / "mtcnn"
    shutil.copytree(Path(mtcnn.__file__).parent, package)
    weights = package / "assets" / "weights" / "onet.lz4"
    weights.write_bytes(weights.read_bytes() + b".")
    monkeypatch.setattr(mtcnn, "__file__", str(package / "__init__.py"))
    detector.cache_clear()
    with pytest.raises(UserError, match="onet.lz4 is not the file of mtcnn") as caught:
        detector()
    assert caught.value.exit_code == ExitCode.INTEGRITY
    weights.unlink()
    with pytest.raises(UserError, match="onet.lz4 is not the file of mtcnn"):
        detector()


@needs_mtcnn
def test_detector_computes_in_float32_after_a_training():
    keras.config.set_dtype_policy("mixed_bfloat16")
    detector.cache_clear()
    models = [stage.model for stage in detector().stages[1:]]
    assert {model.compute_dtype for model in models} == {"float32"}
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


@needs_mtcnn
def test_weights_in_the_working_directory_are_not_read(tmp_path, monkeypatch):
    """mtcnn looks for `pnet.lz4` there first, and it would be unpickled."""
    for name in ("pnet.lz4", "rnet.lz4", "onet.lz4"):
        (tmp_path / name).write_bytes(b"no pickle")
    monkeypatch.chdir(tmp_path)
    detector.cache_clear()
    assert detector() is detector()


def test_missing_extra_is_a_usage_error(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    detector.cache_clear()
    with pytest.raises(UserError, match=r"pip install -e '.\[align\]'") as caught:
        align.find_faces(np.zeros((50, 50, 3), np.uint8))
    assert caught.value.exit_code == ExitCode.USAGE
