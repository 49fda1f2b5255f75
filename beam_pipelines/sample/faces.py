"""Draws a face that follows its attributes, 178x218 like CelebA's aligned images."""

import math

import numpy as np

from beam_pipelines.sample import hair, palette
from beam_pipelines.sample.canvas import Canvas, Color, mix, rgb
from beam_pipelines.sample.hair import HEAD, mirrored
from beam_pipelines.sample.palette import DARK, WHITE, Scene
from beam_pipelines.sample.people import Person
from schemas import celeba

#: Raised whenever the same seed draws other pixels.
VERSION = 2

_HEIGHT, _WIDTH = celeba.ALIGNED_SIZE
_EYES_AT = (89.0, 111.0)  # between the eyes of the aligned images, pixels (x, y)
_GRAIN = np.random.default_rng(1).standard_normal((320, 320)).astype(np.float32)
_ROWS = np.linspace(-0.5, 0.5, _HEIGHT, dtype=np.float32)[:, None]
_COLUMNS = np.linspace(-0.5, 0.5, _WIDTH, dtype=np.float32)


def draw_face(
    person: Person, has: frozenset[str], rng: np.random.Generator
) -> np.ndarray:
    """Draws one image of a person.

    Args:
      person: who; the same on all their images.
      has: the attributes present.
      rng: pose, light, background, clothes and the rest that varies.

    Returns:
      (218, 178, 3) uint8, RGB.
    """
    scene = _scene(person, has, rng)
    _draw_background(scene)
    locks = hair.grow(scene)
    hair.draw_back(scene, locks)
    _draw_body(scene)
    _draw_head(scene)
    _draw_skin(scene)
    hair.draw_beard(scene)
    _draw_nose(scene)
    _draw_mouth(scene)
    hair.draw_mustache(scene)
    _draw_eyes(scene)
    _draw_brows(scene)
    hair.draw_front(scene, locks)
    hair.draw_hat(scene)
    _draw_jewelry(scene)
    _draw_glasses(scene)
    return _develop(scene)


def _scene(person: Person, has: frozenset[str], rng: np.random.Generator) -> Scene:
    traits = dict(person.traits)
    wider = 4.0 * ("Chubby" in has) - 2.0 * ("Oval_Face" in has)
    traits["face_width"] += wider
    traits["jaw"] += 1.8 * wider
    traits["chin"] += 1.4 * wider
    traits["face_length"] += 2.5 * ("Oval_Face" in has)
    traits["nose_width"] *= (
        1 + 0.55 * ("Big_Nose" in has) - 0.2 * ("Pointy_Nose" in has)
    )
    traits["lip"] *= 1.6 if "Big_Lips" in has else 0.9
    skin = palette.skin_color(person, has)
    return Scene(
        canvas=Canvas(
            np.empty((3, _HEIGHT, _WIDTH), np.float32),
            (_EYES_AT[0] + rng.normal(0, 2), _EYES_AT[1] + rng.normal(0, 2)),
            math.radians(rng.normal(0, 4)),
            rng.uniform(0.95, 1.04),
        ),
        person=person,
        traits=traits,
        has=has,
        rng=rng,
        skin=skin,
        shade=palette.shade_color(skin),
        hair=palette.hair_color(person, has),
        lips=palette.lip_color(person, has, skin, rng),
    )


def _draw_background(scene: Scene) -> None:
    rng, pixels = scene.rng, scene.canvas.pixels
    first = palette.background_color(rng)
    second = mix(first, palette.background_color(rng), 0.6)
    ramp = 0.5 + rng.uniform(-0.8, 0.8) * _ROWS + rng.uniform(-0.8, 0.8) * _COLUMNS
    np.multiply((second - first).reshape(3, 1, 1), ramp, out=pixels)
    pixels += first.reshape(3, 1, 1)
    for _ in range(rng.integers(0, 3)):  # lights out of focus
        place = (rng.uniform(-90, 90), rng.uniform(-110, 80))
        size = rng.uniform(12, 34)
        scene.canvas.glow(place, (size, size), WHITE, rng.uniform(0.1, 0.5))


def _draw_body(scene: Scene) -> None:
    canvas, traits = scene.canvas, scene.traits
    neck, length = traits["neck"], traits["face_length"]
    neck += 4 * ("Chubby" in scene.has or "Double_Chin" in scene.has)
    clothes = palette.clothes_color(scene.rng)
    shoulders = [(0.0, 84.0), (neck, 83.0), (traits["shoulders"] * 0.7, 92.0)]
    shoulders += [(traits["shoulders"], 104.0), (traits["shoulders"] + 6, 124.0)]
    shoulders += [(60.0, 140.0), (0.0, 142.0)]
    center = (0.0, 110.0)
    blob = canvas.blob(center, canvas.outline(mirrored(shoulders, center)))
    canvas.fill(blob, clothes, tone=1.08 - 0.25 * blob.depth(1.0) ** 2)
    # A stroke ends half its width beyond its points: this one at v = 86.
    canvas.stroke((0.0, 50.0), (0.0, 86.0 - neck), 0.0, 2 * neck, scene.skin)
    neckline = scene.rng.uniform(7, 20)
    canvas.lens((-neck - 2, 84.0), (neck + 2, 84.0), (-2.0, neckline), scene.skin)
    # The shadow that the head throws on the neck.
    v = length * 0.8
    canvas.lens((-neck, v), (neck, v), (-2.0, length * 0.2 + 13.0), scene.shade, 0.75)
    if "Wearing_Necktie" in scene.has:
        _draw_necktie(scene, clothes)
    if "Wearing_Necklace" in scene.has:
        gold = rgb(236, 196, 84) if scene.rng.random() < 0.6 else rgb(236, 238, 244)
        canvas.stroke((-neck, 79.0), (neck, 79.0), 14.0, 2.2, gold)
        canvas.ellipse((0.0, 94.5), (3.4, 3.8), gold)
        canvas.ellipse((-0.8, 93.4), (1.2, 1.2), WHITE)


def _draw_necktie(scene: Scene, clothes: Color) -> None:
    canvas, v = scene.canvas, 83.0
    tie = palette.clothes_color(scene.rng) * np.float32(0.8)
    canvas.polygon([(-24.0, v), (24.0, v), (13.0, 132.0), (-13.0, 132.0)], WHITE)
    canvas.polygon(
        [(2.0, v + 3), (22.0, v - 13), (28.0, v + 2), (17.0, v + 16)],
        mix(WHITE, clothes, 0.12),
        both=True,
    )
    knot = [(-6.0, v), (6.0, v), (4.0, v + 8), (-4.0, v + 8)]
    canvas.polygon(knot, tie * np.float32(0.85))
    canvas.polygon([(-4.0, v + 8), (4.0, v + 8), (10.0, 132.0), (-10.0, 132.0)], tie)


def _draw_head(scene: Scene) -> None:
    canvas, traits = scene.canvas, scene.traits
    width, length = traits["face_width"], traits["face_length"]
    canvas.ellipse((width + 1, 8.0), (6.0, 10.0), scene.skin, both=True)
    canvas.ellipse((width + 2, 8.0), (3.0, 6.0), scene.shade, 0.6, both=True)
    half = [
        (0.0, -57.0),
        (24.0, -52.0),
        (38.0, -34.0),
        (width * 0.98, -12.0),
        (width, 6.0),
        (width * 0.96, 26.0),
        (traits["jaw"], 46.0),
        (traits["chin"], length - 3),
        (0.0, length),
    ]
    blob = canvas.blob(HEAD, canvas.outline(mirrored(half)))
    tone = blob.depth(1.0)
    tone *= tone
    tone *= tone
    tone *= np.float32(-0.13)
    tone += 1.03
    canvas.fill(blob, scene.skin, tone=tone)
    if "Bald" in scene.has:
        canvas.glow((-12.0, -42.0), (20.0, 10.0), WHITE, 0.5)
    if "Double_Chin" in scene.has:
        v = length - 9
        canvas.lens(
            (-27.0, v), (27.0, v), (0.0, 17.0), mix(scene.skin, scene.shade, 0.3)
        )
        canvas.stroke((-17.0, v + 5), (17.0, v + 5), 4.5, 1.6, scene.shade, 0.9)
        canvas.stroke((-22.0, v + 4), (22.0, v + 4), 12.5, 1.4, scene.shade, 0.6)


def _draw_skin(scene: Scene) -> None:
    canvas, has, traits = scene.canvas, scene.has, scene.traits
    blush = mix(scene.skin, rgb(232, 88, 98), 0.75)
    if "Rosy_Cheeks" in has:
        canvas.glow((26.0, 24.0), (15.0, 12.0), blush, 0.85, both=True)
    elif "Heavy_Makeup" in has:
        canvas.glow((28.0, 22.0), (13.0, 10.0), blush, 0.35, both=True)
    if "High_Cheekbones" in has:
        light = mix(scene.skin, WHITE, 0.55)
        canvas.glow((27.0, 13.0), (12.0, 7.0), light, 0.7, both=True)
        canvas.glow((30.0, 33.0), (13.0, 8.0), scene.shade, 0.4, both=True)
    if "Bags_Under_Eyes" in has:
        u = traits["eye_spacing"]
        canvas.lens((u - 9, 8.5), (u + 9, 8.0), (1.5, 6.0), scene.shade, 0.6, both=True)
    if "Young" not in has:
        _draw_wrinkles(scene)
    if "Attractive" not in has and traits["asymmetry"] > 0.3:
        spot = (14 + 4 * traits["undertone"], 30 + 3 * traits["hair_tone"])
        canvas.ellipse(spot, (1.3, 1.3), scene.shade * 0.6)


def _draw_wrinkles(scene: Scene) -> None:
    canvas, shade = scene.canvas, scene.shade
    canvas.stroke((11.0, 29.0), (20.0, 41.0), -2.0, 1.3, shade, 0.8, both=True)
    canvas.stroke((32.0, -2.0), (37.5, -5.0), 0.0, 1.0, shade, 0.7, both=True)
    canvas.stroke((32.5, 0.5), (38.0, 0.5), 0.0, 1.0, shade, 0.7, both=True)
    for v in (-27.0, -33.0):
        canvas.stroke((-17.0, v), (17.0, v), -2.0, 1.1, shade, 0.6)


def _draw_nose(scene: Scene) -> None:
    canvas, width = scene.canvas, scene.traits["nose_width"]
    tip = scene.traits["nose_length"]
    dark = scene.shade * np.float32(0.84)
    light = mix(scene.skin, WHITE, 0.4)
    if "Pointy_Nose" in scene.has:
        canvas.lens((2.0, 0.0), (width * 0.6, tip), (0.5, 3.0), scene.shade, 0.6)
        canvas.stroke(
            (0.0, tip + 2), (width * 0.75, tip - 2), 0.6, 1.7, dark, both=True
        )
        canvas.glow((-0.5, tip - 7), (2.6, 9.0), light, 0.9)
        return
    canvas.lens((3.0, 2.0), (width, tip - 4), (0.0, 2.5), scene.shade, 0.5)
    wing = (width * 0.42, 3.6)
    canvas.ellipse((width * 0.92, tip - 2), wing, scene.shade, 0.6, both=True)
    canvas.stroke((-width * 0.8, tip), (width * 0.8, tip), 3.2, 1.4, dark, 0.6)
    canvas.ellipse((width * 0.5, tip + 0.6), (width * 0.24, 1.2), dark, both=True)
    canvas.glow((0.0, tip - 4), (width * 0.9, 6.0), light, 0.9)


def _draw_mouth(scene: Scene) -> None:
    canvas, has, traits, rng = scene.canvas, scene.has, scene.traits, scene.rng
    smiling, is_open = "Smiling" in has, "Mouth_Slightly_Open" in has
    half = traits["mouth_width"] + rng.normal(0, 0.6) + 3.0 * smiling
    v = traits["mouth_height"] - 2.5 * smiling
    bow = rng.uniform(4.5, 7.0) if smiling else rng.normal(1.6, 0.6)
    gap = rng.uniform(4.0, 7.5) if is_open else 0.0
    lip, left, right = traits["lip"], (-half, v), (half, v)
    top = bow - 0.25 * gap
    bottom = bow + gap
    canvas.lens(left, right, (top - lip * 1.4, bottom + lip * 1.7), scene.lips)
    if is_open:
        left, right = (-half + 2, v), (half - 2, v)
        canvas.lens(left, right, (top, bottom), rgb(104, 34, 40))
        canvas.lens(left, right, (top, top + 0.55 * (bottom - top)), WHITE)
    else:
        canvas.stroke(left, right, bow, 1.5, mix(scene.lips, DARK, 0.5), 0.9)
    shine = mix(scene.lips, WHITE, 0.5)
    canvas.glow((0.0, v + bottom + lip * 0.8), (half * 0.5, lip * 0.8), shine, 0.8)
    if smiling:
        canvas.stroke(
            (half + 1.5, v - 4), (half + 1.5, v + 4), -1.5, 1.3, scene.shade, both=True
        )


def _draw_eyes(scene: Scene) -> None:
    canvas, has, traits = scene.canvas, scene.has, scene.traits
    u, size = traits["eye_spacing"], traits["eye_size"]
    tilt = size * traits["eye_tilt"]
    inner, outer = (u - size, tilt), (u + size, -tilt)
    up = size * (0.34 if "Narrow_Eyes" in has else 0.62) * scene.rng.uniform(0.92, 1.06)
    low = up * (0.55 if "Smiling" in has else 0.8)
    makeup = "Heavy_Makeup" in has
    lid = mix(scene.shade, _shadow_color(scene), 0.7) if makeup else scene.shade
    reach = up + (6.0 if makeup else 3.5)
    canvas.lens(inner, outer, (-reach, -up + 1), lid, 0.9 if makeup else 0.7, both=True)
    canvas.lens(inner, outer, (-up, low), WHITE, both=True)
    iris = palette.eye_color(scene.person)
    canvas.ellipse((u, -0.4), (size * 0.6, size * 0.6), iris, both=True)
    canvas.ellipse((u, -0.4), (size * 0.32, size * 0.33), rgb(24, 18, 20), both=True)
    for side in (-1, 1):  # the light comes from one side
        canvas.ellipse((side * u + 1.8, -2.2), (1.6, 1.6), WHITE)
    # Lids cover what of the iris is larger than the open eye.
    canvas.lens(inner, outer, (-up - 3.2, -up), lid, both=True)
    canvas.lens(inner, outer, (low, low + 3.6), scene.skin, both=True)
    thick = 2.6 if makeup else 1.4
    canvas.lens(inner, outer, (-up - thick, -up + 0.8), DARK, both=True)
    if makeup:
        wing = (outer[0] + 4.0, outer[1] - 3.5)
        canvas.stroke(outer, wing, 0.0, 1.6, DARK, both=True)


def _shadow_color(scene: Scene) -> Color:
    """Eye shadow; a person keeps theirs."""
    style = scene.traits["style"]
    return mix(rgb(150, 84, 120), rgb(96, 100, 140), min(max(style / 2 + 0.5, 0), 1))


def _draw_brows(scene: Scene) -> None:
    canvas, has, traits = scene.canvas, scene.has, scene.traits
    u, v = traits["eye_spacing"], traits["brow_height"] + scene.rng.normal(0, 0.6)
    color = mix(mix(scene.hair, DARK, 0.4), scene.skin, 0.15)
    thick = traits["brow_weight"] * (1.9 if "Bushy_Eyebrows" in has else 1.0)
    inner, peak, outer = (u - 10.5, v + 0.5), (u + 3.0, v - 1.0), (u + 12.5, v + 2.0)
    if "Arched_Eyebrows" in has:
        inner, peak, outer = (u - 10.5, v), (u + 5.5, v - 4.0), (u + 13.5, v + 2.0)
    canvas.stroke(inner, peak, -0.6, thick, color, 0.95, both=True)
    canvas.lens(
        (peak[0] - 2.0, peak[1]), outer, (-0.5 - thick / 2, thick / 2), color, both=True
    )


def _draw_jewelry(scene: Scene) -> None:
    if "Wearing_Earrings" not in scene.has:
        return
    u, drop = scene.traits["face_width"] + 2, scene.rng.uniform(0, 9)
    gold = rgb(240, 204, 88) if scene.rng.random() < 0.5 else rgb(228, 234, 242)
    canvas = scene.canvas
    canvas.stroke((u, 17.0), (u, 20.0 + drop), 0.0, 1.5, gold, both=True)
    canvas.ellipse((u, 22.5 + drop), (3.6, 3.6), gold, both=True)
    canvas.ellipse((u - 0.8, 21.5 + drop), (1.2, 1.2), WHITE, both=True)


def _draw_glasses(scene: Scene) -> None:
    if "Eyeglasses" not in scene.has:
        return
    canvas, style = scene.canvas, scene.traits["style"]
    frame = mix(DARK, rgb(150, 70, 50), 0.3 + 0.2 * style)
    width, height = 14.5, 11.0 + 1.0 * style
    u = max(scene.traits["eye_spacing"], width + 2.5)
    tinted = scene.rng.random() < 0.15
    glass, strength = (DARK, 0.8) if tinted else (WHITE, 0.14)
    canvas.ellipse((u, 0.5), (width, height), glass, strength, both=True)
    canvas.ring((u, 0.5), (width, height), 2.4, frame, both=True)
    temple = (scene.traits["face_width"] + 1, -2.0)
    canvas.stroke((u + width, -1.0), temple, 0.0, 2.2, frame, both=True)
    canvas.stroke((width - u, -1.0), (u - width, -1.0), -1.5, 2.4, frame)


def _develop(scene: Scene) -> np.ndarray:
    """Light, blur, grain; planes of floats to an interleaved uint8 image."""
    rng, pixels = scene.rng, scene.canvas.finish()
    if "Blurry" in scene.has:
        pixels = _blurred(_blurred(pixels, 2), int(rng.integers(2, 5)))
    tint = rng.normal(1.0, 0.02, (3, 1)) * rng.normal(0.97, 0.05)
    light = (tint * (1 + rng.normal(0, 0.12) * _COLUMNS)).astype(np.float32)
    row, column = rng.integers(0, 100, 2)
    grain = _GRAIN[row : row + _HEIGHT, column : column + _WIDTH]
    grain = grain * np.float32(rng.uniform(1.0, 4.0))
    image = np.empty((_HEIGHT, _WIDTH, 3), np.uint8)
    for channel, plane in enumerate(pixels):
        plane *= light[channel]
        plane += grain
        np.maximum(plane, 0, out=plane)
        image[..., channel] = np.minimum(plane, 255, out=plane)
    return image


def _blurred(pixels: np.ndarray, radius: int) -> np.ndarray:
    """A box blur of width 2 * radius + 1 in both directions, edges repeated."""
    for axis in (1, 2):
        pad = [(0, 0)] * 3
        pad[axis] = (radius, radius)
        padded = np.moveaxis(np.pad(pixels, pad, mode="edge"), axis, 0)
        size = pixels.shape[axis]
        total = padded[:size].copy(order="K")
        for step in range(1, 2 * radius + 1):
            total += padded[step : step + size]
        total /= 2 * radius + 1
        pixels = np.moveaxis(total, 0, axis)
    return np.ascontiguousarray(pixels)
