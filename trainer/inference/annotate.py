"""Images with their predictions in a strip below."""

import functools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import simplejpeg
from PIL import Image, ImageDraw, ImageFont

from support.errors import ExitCode, UserError
from support.figures import MUTED, PRIMARY, SECONDARY
from support.files import output_errors, unfinished_folder
from support.images import JPEG_QUALITY, BadImage
from support.pool import cores, thread_map
from trainer.inference.images import InputImage, on_white

INDEX = "index.csv"

#: Height of the text: this fraction of the image's shorter side, at least some pixels.
_FRACTION, _SMALLEST = 0.08, 14
_LONGEST_NAME = 200  # bytes; file systems take 255


def draw(
    pixels: np.ndarray, caption: str, color: str, fraction: float = _FRACTION
) -> np.ndarray:
    """Puts a strip with a caption below an image; none of its pixels is covered.

    Args:
      pixels: (height, width, 3) uint8, RGB.
      caption: one line of text.
      color: of the strip, as "#rrggbb"; the text is white.
      fraction: height of the text, of the image's shorter side.

    Returns:
      (height + strip, at least width, 3) uint8: wider where the caption is.
    """
    height, width = pixels.shape[:2]
    font = _font(fraction * min(height, width))
    needed = font.getlength(caption) + font.size
    if needed > width:
        font = _font(int(font.size * width / needed))
    room, strip = int(font.getlength(caption) + font.size), round(1.7 * font.size)
    canvas = Image.new("RGB", (max(width, room), height + strip), color)
    canvas.paste(Image.fromarray(pixels), ((canvas.width - width) // 2, 0))
    middle = (canvas.width / 2, height + strip / 2)
    ImageDraw.Draw(canvas).text(middle, caption, "white", font, anchor="mm")
    return np.asarray(canvas)


def frame(pixels: np.ndarray, box: Sequence[int], text: str, color: str) -> np.ndarray:
    """Draws a frame around a face, its number above.

    Args:
      pixels: (height, width, 3) uint8, RGB.
      box: (x, y, width, height), pixels.
      text: the number.
      color: as "#rrggbb".

    Returns:
      (height, width, 3) uint8.
    """
    x, y, width, height = box
    image = Image.fromarray(pixels)
    font = _font(_FRACTION / 2 * min(image.size))
    line = max(2, int(font.size / 8))
    pen = ImageDraw.Draw(image)
    pen.rectangle((x, y, x + width, y + height), outline=color, width=line)
    at = (x, max(y - line, font.size))
    pen.text(at, text, color, font, "lb", stroke_width=line, stroke_fill="white")
    return np.asarray(image)


def _font(size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(max(_SMALLEST, round(size)))


def caption(
    probability: float, label: int, abstained: bool, names: Sequence[str]
) -> str:
    """The text below an image.

    Args:
      probability: of label 1.
      label: the more probable one.
      abstained: whether the model abstains.
      names: of the labels 0 and 1.
    """
    if abstained:
        return f"abstained, {names[1]} {probability:.1%}"
    return f"{names[label]} {probability if label else 1 - probability:.1%}"


def file_names(ids: Sequence[str]) -> list[str]:
    """A name for each annotated image: its image_id, fit for any file system.

    What would have the same name, also where case does not count, gets a number.
    """
    taken: set[str] = set()
    names = []
    for image_id in ids:
        text = re.sub(r"[^\w.() +-]", "_", image_id.lstrip("./")) or "image"
        stem, suffix = os.path.splitext(text)
        if suffix.lower() not in (".jpg", ".jpeg"):
            stem, suffix = text, ".jpg"
        stem = stem.encode()[-_LONGEST_NAME:].decode(errors="ignore")
        name, number = f"{stem}{suffix}", 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}{suffix}"
        taken.add(name.casefold())
        names.append(name)
    return names


def check_folder(folder: str | os.PathLike) -> None:
    """Accepts new and empty directories only, so that nothing is overwritten.

    Raises:
      UserError: exit 4, it contains something, or is no directory.
    """
    folder = Path(folder)
    with output_errors(folder):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
    problem = "contains files already" if folder.is_dir() else "is not a directory"
    raise UserError(
        f"--annotate={folder} {problem}.",
        "Choose another directory; nothing is overwritten.",
        ExitCode.OUTPUT,
    )


def write(
    folder: str | os.PathLike,
    images: Sequence[InputImage],
    table: pd.DataFrame,
    names: Sequence[str],
    progress: Callable[[int], object] = lambda count: None,
) -> list[str]:
    """Writes images with their predictions as JPEG files, and a list of them.

    Images are loaded again, a few at a time. The directory appears complete or not at
    all; its `index.csv` maps files to image_ids.

    Args:
      folder: new or empty.
      images: those that were predicted.
      table: a row for each: image_id, probability, label, abstained; or of aligned
        faces one or several for each, see `Predictor.predict`.
      names: of the labels 0 and 1.
      progress: called with the number of images done since the last call.

    Returns:
      For each image "", or why it can no longer be read.

    Raises:
      UserError: exit 4, the disk is full or not writable, or the directory is no
        longer empty.
    """
    folder = Path(os.path.realpath(folder))
    number = table["image"] if "image" in table else np.arange(len(table))
    rows = [group for _, group in table.groupby(number, sort=False)]
    ids = [group["image_id"].iloc[0] for group in rows]
    targets = file_names(ids)
    rows = zip(images, targets, rows, strict=True)
    errors = []
    with output_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(folder) as unfinished:
            annotate = functools.partial(_annotate, unfinished, names)
            for error in thread_map(annotate, rows, ahead=2 * cores()):
                errors.append(error)
                progress(1)
            index = pd.DataFrame({"file": targets, "image_id": ids})
            written = np.array(errors) == ""
            index[written].to_csv(unfinished / INDEX, index=False)
            check_folder(folder)  # another program may have filled it
            os.replace(unfinished, folder)  # an empty directory gives way
    return errors


def _annotate(
    folder: Path, names: Sequence[str], row: tuple[InputImage, str, pd.DataFrame]
) -> str:
    image, target, rows = row
    try:
        drawn = on_white(image.load())
    except BadImage as error:
        return str(error)
    strips = []
    for each in rows.itertuples():
        if pd.isna(each.label):
            strips.append((each.error, MUTED))
            continue
        color = MUTED if each.abstained else PRIMARY if each.label else SECONDARY
        text = caption(each.probability, each.label, each.abstained, names)
        if "face" in rows:
            box = (each.x, each.y, each.width, each.height)
            drawn = frame(drawn, box, str(each.face), color)
            text = f"{each.face}: {text}" if len(rows) > 1 else text
        strips.append((text, color))
    fraction = _FRACTION / 2 if len(strips) > 1 else _FRACTION
    for text, color in strips:
        drawn = draw(drawn, text, color, fraction)
    (folder / target).write_bytes(
        simplejpeg.encode_jpeg(drawn, quality=JPEG_QUALITY, colorsubsampling="444")
    )
    return ""
