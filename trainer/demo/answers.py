"""Answers of a model about one image, as the page and `POST /predict` give them."""

import importlib.util
import os
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
from pydantic import BaseModel, Field

from support import page
from support.documents import read_text
from support.images import resize
from trainer.inference import align, images
from trainer.inference.predictor import AspectWarning, Predictor
from trainer.reporting import card, gradcam
from trainer.runs.record import checked

Align = Literal["auto", "true", "false"]

#: What is shown of a face is no larger than this, pixels.
_SHOWN_SIDE = 360
#: The largest of them; a photo of a crowd must not occupy the model for long.
_MAX_FACES = 16


class Face(BaseModel):
    """The prediction for one face, or for the complete image."""

    box: tuple[float, float, float, float] | None = Field(
        description="x, y, width and height in pixels; null is the complete image"
    )
    probability: float = Field(description="of label 1, 0 to 1, calibrated")
    label: int = Field(description="1 if the probability is at least 0.5, else 0")
    label_name: str
    abstained: bool = Field(
        description="the probability is in the abstention band: do not use the label"
    )
    image: str = Field(description="what the model saw, a data: URI of a JPEG file")
    heat_map: str | None = Field(
        description="the same below its Grad-CAM map; null if the map has one cell only"
    )


class Prediction(BaseModel):
    """The answer to an image."""

    probability_of: str = Field(description="what label 1 stands for")
    abstain: float = Field(
        description="the model abstains less than this away from 0.5"
    )
    width: int = Field(description="of the image, its EXIF orientation applied, pixels")
    height: int
    faces: list[Face] = Field(description="from left to right; may be empty")
    notes: list[str] = Field(description="what to know about this answer")
    model_sha256: str | None = Field(description="SHA-256 of best.keras")


class Answers:
    """A run's model with all that the page shows of its answers.

    Attributes:
      run_name: the directory's own name.
      predictor: of the run.
      card: the model card, Markdown; None if there is none.
      can_align: whether faces can be found here, and are what the model is for.
    """

    def __init__(self, run_dir: str | os.PathLike):
        """Loads the model.

        Raises:
          UserError: not a finished run (exit 3); a damaged or foreign file (exit 5).
        """
        run_dir = Path(run_dir)
        self.run_name = run_dir.resolve().name
        self.predictor = Predictor(run_dir)
        has_card = (run_dir / card.FILE_NAME).exists()
        self.card = checked(run_dir, card.FILE_NAME, read_text) if has_card else None
        self._heat_map = gradcam.explainer(self.predictor.model)
        installed = importlib.util.find_spec("mtcnn") is not None
        self.can_align = installed and self.predictor.is_celeba()

    def warm_up(self) -> None:
        """Does once what the first image would wait for."""
        pixels = np.zeros((*self.predictor.image_shape, 3), np.uint8)
        if self.can_align:
            align.find_faces(pixels)
        self._face(pixels, None)

    def answer(self, data: bytes, mode: Align = "auto") -> Prediction:
        """Predicts an image.

        Args:
          data: a JPEG or PNG file.
          mode: "true" finds and aligns faces, "false" takes the complete image as one
            aligned face, "auto" finds faces unless the image has the aspect of the
            training images. Without `can_align` all are "false".

        Raises:
          support.images.BadImage: it cannot be used.
        """
        decoded = images.decode(data)
        pixels = images.on_white(decoded)
        notes = ["The transparent image was put on white."] * (decoded.shape[2] == 4)
        faces = self._faces(pixels, mode, notes)
        facts = self.predictor.facts
        return Prediction(
            probability_of=facts["probability_of"],
            abstain=self.predictor.abstain,
            width=pixels.shape[1],
            height=pixels.shape[0],
            faces=[self._face(*face) for face in faces],
            notes=notes,
            model_sha256=facts["sha256"],
        )

    def _faces(
        self, pixels: np.ndarray, mode: Align, notes: list[str]
    ) -> list[tuple[np.ndarray, tuple | None]]:
        """The images for the model, each with its box in the photo."""
        height, width = shape = self.predictor.image_shape
        other_aspect = self.predictor.is_other_aspect(*pixels.shape[:2])
        is_photo = mode == "true" or mode == "auto" and other_aspect
        if not (is_photo and self.can_align):
            if mode == "true":
                notes.append("Faces cannot be found here: see the API's page.")
            if other_aspect:
                notes.append(
                    f"The model was trained on aligned images of {width} × {height} "
                    "pixels; this one has another aspect: do not rely on the answer."
                )
            return [(pixels, None)]
        faces = align.find_faces(pixels)
        if not faces:
            notes.append("No face was found.")
        if len(faces) > _MAX_FACES:
            notes.append(f"These are the {_MAX_FACES} largest of {len(faces)} faces.")
            faces.sort(key=lambda face: -face.box[2] * face.box[3])
            faces = sorted(faces[:_MAX_FACES], key=lambda face: face.box)
        return [(align.aligned(pixels, face, shape), face.box) for face in faces]

    def _face(self, pixels: np.ndarray, box: tuple | None) -> Face:
        # One image a batch: another number would be compiled again.
        with warnings.catch_warnings(action="ignore", category=AspectWarning):
            [row] = self.predictor.predict(pixels, batch_size=1).to_dict("records")
        heat = self._heat_map(pixels)
        height, width = pixels.shape[:2]
        scale = min(1, _SHOWN_SIDE / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        shown = np.ascontiguousarray(resize(pixels, size))
        overlay = gradcam.overlay(shown, heat) if heat.size > 1 else None
        return Face(
            box=box,
            probability=row["probability"],
            label=row["label"],
            label_name=self.predictor.label_names[row["label"]],
            abstained=row["abstained"],
            image=_data_uri(simplejpeg.encode_jpeg(shown, quality=90)),
            heat_map=overlay and _data_uri(overlay),
        )


def _data_uri(jpeg: bytes) -> str:
    return page.data_uri("image/jpeg", jpeg)
