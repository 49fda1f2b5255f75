"""Hair, beards and hats of the drawn faces."""

from typing import NamedTuple

import numpy as np

from beam_pipelines.sample.canvas import Color, Point, mix, rgb
from beam_pipelines.sample.masks import DIRECTIONS, Blob
from beam_pipelines.sample.palette import DARK, Scene, clothes_color

#: Center of the head and of all shapes around it, in face coordinates.
HEAD = (0.0, 10.0)

_TEXTURE = np.random.default_rng(0)
#: Strands: a smooth random brightness along the way from the head's center outwards.
_STRANDS = np.convolve(
    _TEXTURE.standard_normal(1024 + 4), [0.1, 0.25, 0.3, 0.25, 0.1], "valid"
)
_WAVES = np.abs(np.sin(DIRECTIONS * 8)).astype(np.float32)
_DEPTHS = 160  # strands from the center to the outline
#: A sheen on the crown: brightness per depth.
_SHEEN = np.exp(-(((np.arange(_DEPTHS * 2) / _DEPTHS - 0.9) / 0.045) ** 2))
#: Bangs: how far single locks hang over or fall short of the fringe, pixels.
_FRINGE = (
    1.2
    * (np.sin(DIRECTIONS) < -0.4)
    * (np.sin(DIRECTIONS * 31) + np.sin(DIRECTIONS * 47 + 1))
).astype(np.float32)
#: Stubble: speckles that a beard's mask is multiplied by.
_STUBBLE = _TEXTURE.uniform(0.5, 1.5, (400, 400)).astype(np.float32)


def mirrored(right: list[Point], center: Point = HEAD) -> np.ndarray:
    """A symmetric outline from its right half, top to bottom, both ends on the axis."""
    half = np.array(right)
    left = half[-2:0:-1] * (-1, 1)
    return np.concatenate([half, left]) - center


class Locks(NamedTuple):
    """All hair of a head: where it is, and how bright each of its pixels."""

    blob: Blob
    tone: np.ndarray


def grow(scene: Scene) -> Locks | None:
    """The hair, to be drawn behind the face and around it; None if bald."""
    if "Bald" in scene.has:
        return None
    blob = scene.canvas.blob(HEAD, _outer(scene))
    return Locks(blob, _strands(scene, blob))


def draw_back(scene: Scene, locks: Locks | None) -> None:
    """What lies behind face, neck and shoulders."""
    if locks and _length(scene) != "short":
        scene.canvas.fill(locks.blob, scene.hair * np.float32(0.6), tone=locks.tone)


def draw_front(scene: Scene, locks: Locks | None) -> None:
    """The hair around the face, with its hairline or bangs."""
    if locks:
        blob = locks.blob.outside(_opening(scene))
        scene.canvas.fill(blob, scene.hair, tone=locks.tone)


def _length(scene: Scene) -> str:
    length = scene.traits["hair_length"]
    return "long" if length > 0.6 else "medium" if length > 0 else "short"


def _outer(scene: Scene) -> np.ndarray:
    width, volume = scene.traits["face_width"], scene.traits["hair_volume"]
    top = [
        (0.0, -57 - volume),
        (27.0, -51 - 0.9 * volume),
        (width + 0.5 * volume - 1, -30.0),
    ]
    sides = {
        "long": [(width + 5 + 0.5 * volume, 0.0), (width + 8, 40.0), (width + 9, 75.0)]
        + [(width, 101.0), (24.0, 110.0), (0.0, 112.0)],
        "medium": [(width + 4 + 0.6 * volume, 0.0), (width + 8, 30.0)]
        + [(width + 1, 55.0), (26.0, 64.0), (0.0, 66.0)],
        "short": [(width + 3, -12.0), (width + 1, 2.0), (width * 0.8, 12.0)]
        + [(20.0, 26.0), (0.0, 28.0)],
    }
    outline = scene.canvas.outline(mirrored(top + sides[_length(scene)]))
    if "Wavy_Hair" in scene.has:
        outline += 5.0 * scene.canvas.scale * (_waves(scene) - np.float32(0.4))
    return outline


def _opening(scene: Scene) -> np.ndarray:
    """The outline of the face that the hair leaves free."""
    width, jaw = scene.traits["face_width"], scene.traits["jaw"]
    line = scene.traits["hairline"]
    receding, bangs = "Receding_Hairline" in scene.has, "Bangs" in scene.has
    if receding:
        top = [(0.0, line - 3), (12.0, line - 7), (25.0, line - 9), (width - 7, -38.0)]
    elif bangs:
        top = [(0.0, -21.0), (14.0, -20.0), (26.0, -18.0), (width - 8, -13.0)]
    else:
        top = [(0.0, line), (14.0, line + 1), (27.0, line + 7), (width - 7, -22.0)]
    lower = [(width - 3, -4.0), (width - 3, 18.0), (jaw + 4, 44.0)]
    sides = {
        "long": lower
        + [(jaw + 6, 70.0), (jaw + 14, 104.0), (20.0, 130.0), (0.0, 134.0)],
        "medium": lower + [(jaw + 5, 66.0), (20.0, 90.0), (0.0, 94.0)],
        "short": [(width - 4, -8.0), (width + 2, 8.0), (width + 6, 20.0)]
        + [(jaw + 8, 44.0), (20.0, 70.0), (0.0, 74.0)],
    }
    points = mirrored(top + sides[_length(scene)])
    if not (receding or bangs):
        # A side part: the hairline is higher on one side of the head.
        lift = np.where(points[:, 1] < -25, 0.14 * scene.traits["hair_part"], 0.0)
        points[:, 1] += lift * points[:, 0]
    opening = scene.canvas.outline(points)
    if bangs:
        opening += _FRINGE * np.float32(scene.canvas.scale)
    return opening


def _strands(scene: Scene, blob: Blob) -> np.ndarray:
    """Brightness of each pixel: strands run along the outline, wavy ones undulate."""
    index = blob.depth(_DEPTHS)
    contrast, sheen = 0.10, 0.12
    if "Wavy_Hair" in scene.has:
        index += (7.0 * _waves(scene)).take(blob.sector, mode="clip")
        contrast = 0.17
    elif "Straight_Hair" in scene.has:
        sheen = 0.35
    start = int(100 * abs(scene.traits["hair_part"]))
    tones = 1 + contrast * _STRANDS[start : start + len(_SHEEN)] + sheen * _SHEEN
    return tones.astype(np.float32).take(index.astype(np.intp), mode="clip")


def _waves(scene: Scene) -> np.ndarray:
    """Waves around the head, 0..1 per direction, turned by the person's style."""
    return np.roll(_WAVES, int(60 * scene.traits["style"]))


def draw_beard(scene: Scene) -> None:
    """Stubble, full beard, goatee, sideburns; the mustache is drawn over the mouth."""
    if "No_Beard" in scene.has:
        return
    kinds = {"5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns"} & scene.has
    color = mix(scene.hair, DARK, 0.3)
    if "5_o_Clock_Shadow" in kinds:
        _fill_beard(scene, _full_beard(scene), mix(color, scene.shade, 0.2), 0.3)
    elif not kinds:
        _fill_beard(scene, _full_beard(scene), color, 0.7)
    if "Goatee" in kinds:
        _fill_beard(scene, _goatee(scene), color, 0.85)
    if "Sideburns" in kinds:
        top, bottom = scene.traits["face_width"] - 1, scene.traits["jaw"] + 4.5
        scene.canvas.lens(
            (top, -14.0), (bottom, 36.0), (-3.5, 6.0), color, 0.85, both=True
        )


def _full_beard(scene: Scene) -> list[Point]:
    width, jaw = scene.traits["face_width"], scene.traits["jaw"]
    length = scene.traits["face_length"]
    return [
        (0.0, 29.5),
        (13.0, 29.5),
        (27.0, 27.0),
        (width - 6, 12.0),
        (width - 0.5, 14.0),
        (width * 0.96, 26.0),
        (jaw + 0.5, 45.0),
        (scene.traits["chin"] + 1, length - 3),
        (0.0, length + 1),
    ]


def _goatee(scene: Scene) -> list[Point]:
    length, mouth = scene.traits["face_length"], scene.traits["mouth_width"]
    return [
        (0.0, 32.0),
        (mouth * 0.8, 33.0),
        (mouth + 3, 40.0),
        (mouth + 2, 52.0),
        (scene.traits["chin"] * 0.9, length - 2),
        (0.0, length + 2),
    ]


def _fill_beard(scene: Scene, half: list[Point], color: Color, alpha: float) -> None:
    center = (0.0, scene.traits["mouth_height"])
    lips = scene.traits["mouth_width"] + 0.5
    hole = mirrored(
        [(0.0, -5.5), (lips * 0.7, -4.0), (lips, 0.0), (lips * 0.7, 5.5), (0.0, 7.0)],
        (0.0, 0.0),
    )
    blob = scene.canvas.blob(center, scene.canvas.outline(mirrored(half, center)))
    blob = blob.outside(scene.canvas.outline(hole))
    height, width = blob.mask.shape
    row, column = scene.rng.integers(0, 180, 2)
    blob.mask *= _STUBBLE[row : row + height, column : column + width]
    np.minimum(blob.mask, 1 / alpha, out=blob.mask)
    scene.canvas.fill(blob, color, alpha)


def draw_mustache(scene: Scene) -> None:
    if "Mustache" not in scene.has:
        return
    color = mix(scene.hair, DARK, 0.25)
    v, reach = scene.traits["mouth_height"] - 6.0, scene.traits["mouth_width"] + 1
    scene.canvas.lens((-1.0, v), (reach, v + 5.0), (-5.5, 1.0), color, both=True)


def draw_hat(scene: Scene) -> None:
    """A woolen hat, a cap or a hat with a brim, by the person's style."""
    if "Wearing_Hat" not in scene.has:
        return
    color, canvas = clothes_color(scene.rng), scene.canvas
    width = scene.traits["face_width"] + 6
    center = (0.0, -42.0)
    dome = [(0.0, -78.0), (26.0, -73.0), (width - 3, -54.0), (width, -34.0)]
    dome += [(width - 4, -25.0), (20.0, -27.0), (0.0, -28.0)]
    blob = canvas.blob(center, canvas.outline(mirrored(dome, center)))
    canvas.fill(blob, color, tone=1.1 - 0.3 * blob.depth(1.0) ** 2)
    band = color * rgb(0.72, 0.72, 0.74)
    style = scene.traits["style"]
    if style < -0.4:
        canvas.stroke((-width, -31.0), (width, -31.0), -4.0, 13.0, band)
        for u in range(-40, 41, 8):
            canvas.stroke(
                (u, -40.0 + u * u * 0.001), (u, -29.0), 0.0, 1.5, band * 0.86, 0.8
            )
        canvas.ellipse((0.0, -79.0), (7.0, 7.0), band)
    elif style < 0.6:
        canvas.lens((-width - 3, -27.0), (width + 3, -27.0), (-13.0, -1.0), band)
        canvas.ellipse((0.0, -77.0), (3.0, 2.0), band)
    else:
        canvas.stroke((-width, -37.0), (width, -37.0), -4.0, 9.0, band)
        canvas.lens((-width - 26, -30.0), (width + 26, -30.0), (-9.0, 3.0), color)
