"""Draws a synthetic face that follows its attributes, 178x218 like CelebA's images."""

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from beam_pipelines.sample import palette
from beam_pipelines.sample.palette import DARK, WHITE, between, mix, pick
from beam_pipelines.sample.pen import CIRCLE, ENLARGED, Pen, as_ink, outline
from beam_pipelines.sample.people import Person
from schemas import celeba

#: Raised whenever the same seed draws other pixels.
VERSION = 4

_HEIGHT, _WIDTH = celeba.ALIGNED_SIZE
_SIZE = (_WIDTH * ENLARGED, _HEIGHT * ENLARGED)
_EYES_AT = np.array([89.0, 111.0])  # between the eyes of the aligned images, (x, y)
_HEAD = np.array([0.0, 10.0])  # its center in face coordinates
_TEXTURE = np.random.default_rng(0)
# Freeing the doubles, 2.5 MB, lets glibc keep as much for the arrays of each image.
_GRAIN = _TEXTURE.standard_normal((320, 320, 1)).repeat(3, axis=2).astype(np.float32)
_STUBBLE = _TEXTURE.integers(110, 256, (320, 320), np.uint8).repeat(2, 0).repeat(2, 1)
_STUBBLE = Image.fromarray(_STUBBLE)
#: Hair is a band of strands: where in the band they are, and how bright.
_DEPTHS = np.linspace(0.06, 0.92, 8)
_STRANDS = _TEXTURE.uniform(-1.5, 1.5, 256)
_SHEEN = np.exp(-(((_DEPTHS - 0.25) / 0.12) ** 2))


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
    image = Face(person, has, rng).paint().reduce(ENLARGED)
    if "Blurry" in has:
        image = image.filter(ImageFilter.BoxBlur(2))
        image = image.filter(ImageFilter.BoxBlur(int(rng.integers(2, 5))))
    light = rng.normal(1.0, 0.02, 3) * rng.normal(0.97, 0.05)
    light = light + rng.normal(0, 0.12) * np.linspace(-0.5, 0.5, _WIDTH)[:, None]
    row, column = rng.integers(0, 100, 2)
    grain = _GRAIN[row : row + _HEIGHT, column : column + _WIDTH]
    noise = rng.uniform(1.0, 4.0)
    pixels = np.asarray(image) * (light / noise).astype(np.float32)
    pixels += grain
    pixels *= np.float32(noise)
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


class Face(Pen):
    """One image while it is drawn: a pen, the attributes, traits and colors."""

    def __init__(self, person: Person, has: frozenset[str], rng: np.random.Generator):
        origin, angle = _EYES_AT + rng.normal(0, 2, 2), math.radians(rng.normal(0, 4))
        super().__init__(_background(rng), origin, angle, rng.uniform(0.95, 1.04))
        self.has, self.rng, self.traits = has, rng, dict(person.traits)
        wider = 4.0 * ("Chubby" in has) - 2.0 * ("Oval_Face" in has)
        for name, factor in (("face_width", 1.0), ("jaw", 1.8), ("chin", 1.4)):
            self.traits[name] += factor * wider
        self.traits["face_length"] += 2.5 * ("Oval_Face" in has)
        skin = between(palette.SKINS, 2.9 + 0.85 * self.traits["skin"])
        skin = skin * (1 + self.traits["undertone"] * np.array([0.018, 0.0, -0.03]))
        self.skin = mix(skin, palette.PALE, 0.65 * ("Pale_Skin" in has))
        self.shade = self.skin * (0.80, 0.70, 0.66)  # skin in shadow
        hair = next((name for name in palette.HAIR if name in has), None)
        self.hair = between(palette.HAIR[hair], (self.traits["hair_tone"] + 2) / 4)

    def paint(self) -> Image.Image:
        """Draws everything, back to front; returns the enlarged image."""
        for _ in range(self.rng.integers(0, 3)):  # lights out of focus
            place = self.rng.uniform((-90, -110), (90, 80))
            radii = self.rng.uniform(12, 34, 1).repeat(2)
            self.glow(place, radii, WHITE, self.rng.uniform(0.1, 0.5))
        outer, inner = _hair_edges(self)
        if "Bald" not in self.has and self.traits["hair_length"] > 0:
            self.polygon(outer, self.hair * 0.6)  # behind the neck
        for draw in (_draw_body, _draw_head, _draw_skin, _draw_beard, _draw_nose):
            draw(self)
        for draw in (_draw_mouth, _draw_eyes, _draw_brows):
            draw(self)
        if "Bald" not in self.has:
            _draw_hair(self, outer, inner)
        for draw in (_draw_hat, _draw_earrings, _draw_glasses):
            draw(self)
        return self.image

    def fill_round(self, points, center, color, tones) -> None:
        """Fills an area whose brightness changes from its edge (first tone) inwards."""
        for depth, tone in zip(np.linspace(1, 0.5, len(tones)), tones, strict=True):
            self.polygon((points - center) * depth + center, color * tone)


def _background(rng: np.random.Generator) -> Image.Image:
    """Returns a ramp between two colors, in any direction across the image."""
    first, second = pick(palette.BACKGROUNDS, rng), pick(palette.BACKGROUNDS, rng)
    ramp = mix(first, second, np.linspace(0, 0.6, 256)[None, :, None]).astype(np.uint8)
    size, angle = (_WIDTH // 2, _HEIGHT // 2), rng.uniform(0, 2 * math.pi)
    slope = rng.uniform(0.6, 1.8) * np.array([math.cos(angle), math.sin(angle)])
    affine = (*slope, 127.5 - slope @ size / 2, 0, 0, 0.5)
    image = Image.fromarray(ramp).transform(size, Image.Transform.AFFINE, affine)
    return image.resize(_SIZE, Image.Resampling.NEAREST)


def _draw_body(face: Face) -> None:
    rng, wide = face.rng, face.traits["shoulders"]
    neck = face.traits["neck"] + 4 * bool(face.has & {"Chubby", "Double_Chin"})
    clothes, v = pick(palette.CLOTHES, rng), 0.8 * face.traits["face_length"]
    edge = [(0, 84), (neck, 83), (wide * 0.7, 92), (wide, 104), (wide + 6, 124)]
    edge = outline([*edge, (60, 140), (0, 142)])
    face.fill_round(edge, (0, 130), clothes, (0.9, 0.97))
    face.polygon([(-neck, 50), (neck, 50), (neck, 86), (-neck, 86)], face.skin)
    face.lens((-neck - 2, 84), (neck + 2, 84), (-2, rng.uniform(7, 20)), face.skin)
    # The shadow that the head throws on the neck.
    face.lens((-neck, v), (neck, v), (-2, v / 4 + 13), face.shade, 0.75)
    if "Wearing_Necktie" in face.has:
        tie, shirt = pick(palette.CLOTHES, rng) * 0.8, mix(WHITE, clothes, 0.12)
        face.polygon([(-24, 83), (24, 83), (13, 132), (-13, 132)], WHITE)
        face.polygon([(2, 86), (22, 70), (28, 85), (17, 99)], shirt, both=True)
        face.polygon([(-6, 83), (6, 83), (4, 91), (10, 132), (-10, 132), (-4, 91)], tie)
    if "Wearing_Necklace" in face.has:
        metal = pick(palette.METALS, rng)
        face.stroke((-neck, 79), (neck, 79), 14, 2.6, metal)
        face.ellipse((0, 94.5), (3.4, 3.8), metal)


def _draw_head(face: Face) -> None:
    traits, skin, shade = face.traits, face.skin, face.shade
    width, length = traits["face_width"], traits["face_length"]
    face.ellipse((width + 1, 8), (6, 10), skin, both=True)
    face.ellipse((width + 2, 8), (3, 6), shade, 0.6, both=True)
    edge = [(0, -57), (24, -52), (38, -34), (width * 0.98, -12), (width, 6)]
    edge += [(width * 0.96, 26), (traits["jaw"], 46), (traits["chin"], length - 3)]
    face.fill_round(outline([*edge, (0, length)]), _HEAD, skin, (0.9, 0.97, 1.0, 1.02))
    if "Bald" in face.has:
        face.glow((-12, -42), (20, 10), WHITE, 0.5)
    if "Double_Chin" in face.has:
        v = length - 9
        face.lens((-27, v), (27, v), (0, 17), mix(skin, shade, 0.3))
        for half, bow in ((18, 5.5), (23, 12.5)):
            face.stroke((-half, v + 4), (half, v + 4), bow, 1.9, shade, 0.75)


def _draw_skin(face: Face) -> None:
    has, traits, shade = face.has, face.traits, face.shade
    blush = mix(face.skin, palette.BLUSH, 0.75)
    if "Rosy_Cheeks" in has:
        face.glow((26, 24), (15, 12), blush, 0.85, both=True)
    elif "Heavy_Makeup" in has:
        face.glow((28, 22), (13, 10), blush, 0.35, both=True)
    if "High_Cheekbones" in has:
        face.glow((27, 13), (12, 7), mix(face.skin, WHITE, 0.55), 0.7, both=True)
        face.glow((30, 33), (13, 8), shade, 0.4, both=True)
    if "Bags_Under_Eyes" in has:
        u = traits["eye_spacing"]
        face.lens((u - 9, 8.5), (u + 9, 8), (1.5, 6), shade, 0.6, both=True)
    if "Young" not in has:  # wrinkles next to the mouth, at the eyes, on the forehead
        face.stroke((11, 29), (20, 41), -2, 1.6, shade, 0.8, both=True)
        face.stroke((32, -1), (38, -4), 0, 1.6, shade, 0.8, both=True)
        for v in (-33, -27):
            face.stroke((-18, v), (18, v), -2, 1.4, shade, 0.6)
    if "Attractive" not in has:
        mole = (14 + 4 * traits["undertone"], 30 + 3 * traits["hair_tone"])
        face.ellipse(mole, (1.3, 1.3), shade * 0.6)


def _draw_nose(face: Face) -> None:
    wider = 1.55 if "Big_Nose" in face.has else 1.0
    width, tip = face.traits["nose_width"] * wider, face.traits["nose_length"]
    shade, dark, light = face.shade, face.shade * 0.84, mix(face.skin, WHITE, 0.4)
    if "Pointy_Nose" in face.has:
        u = width * 0.6
        face.lens((2, 0), (u * 0.75, tip), (0.5, 3), shade, 0.6)
        face.stroke((0, tip + 2), (u, tip - 2), 0.6, 2.2, dark, both=True)
        face.glow((-0.5, tip - 7), (2.6, 9), light, 0.9)
    else:
        face.lens((3, 2), (width, tip - 4), (0, 2.5), shade, 0.5)
        face.ellipse((width * 0.92, tip - 2), (width * 0.42, 3.6), shade, 0.6, True)
        face.ellipse((width * 0.5, tip + 0.6), (width * 0.26, 1.3), dark, both=True)
        face.glow((0, tip - 4), (width * 0.9, 6), light, 0.9)


def _draw_mouth(face: Face) -> None:
    traits, rng, smiling = face.traits, face.rng, "Smiling" in face.has
    # Natural lips run from skin to rose, which overlaps with faint lipstick.
    red = min(max(traits["lip_red"], 0.0), 0.8)
    color = mix(face.skin * (0.86, 0.66, 0.64), palette.ROSE, red)
    if "Wearing_Lipstick" in face.has:
        color = mix(color, pick(palette.LIPSTICKS, rng), rng.uniform(0.5, 1.0))
    half = traits["mouth_width"] + rng.normal(0, 0.6) + 3.0 * smiling
    v, lip = traits["mouth_height"] - 2.5 * smiling, traits["lip"]
    lip *= 1.6 if "Big_Lips" in face.has else 0.9
    top = rng.uniform(4.5, 7.0) if smiling else rng.normal(1.6, 0.6)
    gap = rng.uniform(4.0, 7.5) * ("Mouth_Slightly_Open" in face.has)
    top, bottom = top - gap / 4, top + gap
    left, right = (-half, v), (half, v)
    face.lens(left, right, (top - lip * 1.4, bottom + lip * 1.7), color)
    if gap:
        left, right = (-half + 2, v), (half - 2, v)
        face.lens(left, right, (top, bottom), palette.THROAT)
        face.lens(left, right, (top, top + 0.55 * (bottom - top)), WHITE)
    else:
        face.stroke(left, right, top, 1.8, mix(color, DARK, 0.5), 0.9)
    shine = mix(color, WHITE, 0.5)
    face.glow((0, v + bottom + lip * 0.8), (half * 0.5, lip * 0.8), shine, 0.8)
    if smiling:
        start, end = (half + 1.5, v - 5), (half + 1.5, v + 5)
        face.stroke(start, end, -1.5, 1.6, face.shade, both=True)


def _draw_eyes(face: Face) -> None:
    traits, makeup = face.traits, "Heavy_Makeup" in face.has
    u, size, tilt = (traits[f"eye_{name}"] for name in ("spacing", "size", "tilt"))
    inner, outer = (u - size, size * tilt), (u + size, -size * tilt)
    up = 0.34 if "Narrow_Eyes" in face.has else 0.62
    up *= size * face.rng.uniform(0.92, 1.06)
    low = up * (0.55 if "Smiling" in face.has else 0.8)
    lid, reach, thick = face.shade, 3.5, 1.4
    if makeup:  # a person keeps their eye shadow
        shadow = between(palette.EYE_SHADOWS, traits["style"] / 2 + 0.5)
        lid, reach, thick = mix(lid, shadow, 0.7), 6.0, 2.6
        wing = (u + size + 4, -size * tilt - 3.5)
        face.lens(outer, wing, (-1.6, 0.4), DARK, both=True)
    face.lens(inner, outer, (-up - reach, 1 - up), lid, 0.8, both=True)
    face.lens(inner, outer, (-up, low), WHITE, both=True)
    iris = between(palette.EYES, 1.6 + 1.1 * traits["eye_color"])
    face.ellipse((u, -0.4), (size * 0.6, size * 0.6), iris, both=True)
    face.ellipse((u, -0.4), (size * 0.32, size * 0.33), DARK * 0.6, both=True)
    for side in (u, -u):  # the light comes from one side
        face.ellipse((side + 1.8, -2.2), (1.6, 1.6), WHITE)
    # Lids cover what of the iris is larger than the open eye.
    face.lens(inner, outer, (-up - 3.2, -up), lid, both=True)
    face.lens(inner, outer, (low, low + 3.6), face.skin, both=True)
    face.lens(inner, outer, (-up - thick, 0.8 - up), DARK, both=True)


def _draw_brows(face: Face) -> None:
    traits, color = face.traits, mix(mix(face.hair, DARK, 0.4), face.skin, 0.15)
    u, v = traits["eye_spacing"], traits["brow_height"] + face.rng.normal(0, 0.6)
    arched, thick = "Arched_Eyebrows" in face.has, traits["brow_weight"] * 1.25
    thick *= 1.9 if "Bushy_Eyebrows" in face.has else 1.0
    bow = -5.5 if arched else -2.0
    face.stroke((u - 11, v + 0.5), (u + 13, v + 2), bow, thick, color, both=True)


def _hair_edges(face: Face) -> tuple[np.ndarray, np.ndarray]:
    """Returns the outer and the inner edge of the hair, (n, 2), left to right.

    Both end where the hair ends: at the ears, under the jaw or on the shoulders.
    """
    traits, has = face.traits, face.has
    width, jaw, line = traits["face_width"], traits["jaw"], traits["hairline"]
    top, length = -57 - traits["hair_volume"], traits["hair_length"]
    side = width + 0.5 * traits["hair_volume"]
    outer = [(0, top), (14, top + 1.5), (27, 0.9 * top), (side - 1, -30)]
    inner = [(0, line), (14, line + 1), (27, line + 7), (width - 7, -22)]
    if "Receding_Hairline" in has:
        inner = [(0, line - 3), (12, line - 7), (25, line - 9), (width - 7, -38)]
    elif "Bangs" in has:
        inner = [(0, -21), (14, -20), (26, -18), (width - 8, -13)]
    if length > 0.6:
        outer += [(side + 5, 0), (width + 8, 40), (width + 9, 75), (width, 101)]
        inner += [(width - 3, -4), (width - 3, 18), (jaw + 4, 44), (jaw + 12, 90)]
    elif length > 0:
        outer += [(side + 4, 0), (width + 8, 30), (width + 1, 55), (jaw + 6, 62)]
        inner += [(width - 3, -4), (width - 3, 18), (jaw + 4, 44), (jaw + 5, 60)]
    else:
        outer += [(width + 3, -12), (width + 2, 0), (width + 1, 6)]
        inner += [(width - 4, -8), (width - 1, 2), (width + 1, 6)]
    outer, inner = outline(outer), outline(inner)
    if "Wavy_Hair" in has:
        rays = outer - _HEAD
        angles = np.arctan2(rays[:, 1], rays[:, 0]) + traits["style"] / 5
        outer += rays * (0.09 * np.abs(np.sin(8 * angles)) - 0.03)[:, None]
    if "Bangs" in has:  # single locks hang over or fall short of the fringe
        inner[:, 1] += 2.4 * np.sin(2.3 * inner[:, 0]) * (inner[:, 1] < -12)
    elif "Receding_Hairline" not in has:  # the part is higher on one side
        inner[:, 1] += 0.14 * traits["hair_part"] * (inner[:, 1] < -25) * inner[:, 0]
    return outer, inner


def _draw_hair(face: Face, outer: np.ndarray, inner: np.ndarray) -> None:
    start = int(100 * abs(face.traits["hair_part"]))
    contrast = 0.17 if "Wavy_Hair" in face.has else 0.1
    tones = 1 + contrast * _STRANDS[start : start + len(_DEPTHS)]
    tones += (0.35 if "Straight_Hair" in face.has else 0.12) * _SHEEN
    face.polygon(np.concatenate([outer, inner[::-1]]), face.hair)
    for depth, tone in zip(_DEPTHS, tones, strict=True):
        face.line(outer + depth * (inner - outer), 3.1, face.hair * tone)


def _draw_beard(face: Face) -> None:
    traits, color = face.traits, mix(face.hair, DARK, 0.3)
    width, jaw, length = traits["face_width"], traits["jaw"], traits["face_length"]
    mouth, chin, v = traits["mouth_width"], traits["chin"], traits["mouth_height"]
    full = [(0, 29.5), (13, 29.5), (27, 27), (width - 6, 12), (width - 0.5, 14)]
    full += [(width * 0.96, 26), (jaw, 45), (chin + 1, length - 3), (0, length + 1)]
    goatee = [(0, 32), (mouth * 0.8, 33), (mouth + 3, 40), (mouth + 2, 52)]
    goatee += [(chin * 0.9, length - 2), (0, length + 2)]
    if "5_o_Clock_Shadow" in face.has:
        _fill_beard(face, full, mix(color, face.shade, 0.2), 0.42)
    elif not face.has & {"No_Beard", "Goatee", "Mustache", "Sideburns"}:
        _fill_beard(face, full, color, 0.95)
    if "Goatee" in face.has:
        _fill_beard(face, goatee, color, 1.0)
    if "Sideburns" in face.has:
        start, end = (jaw + 4.5, 36), (width - 1, -14)
        face.lens(start, end, (-3.5, 6), color, 0.85, both=True)
    if "Mustache" in face.has:
        face.lens((-1, v - 6), (mouth + 1, v - 1), (-5.5, 1), color, both=True)


def _fill_beard(face: Face, half, color: np.ndarray, alpha: float) -> None:
    """Fills a half given from the top down, and its mirror image, with speckles."""
    mask = Image.new("L", _SIZE)
    draw = ImageDraw.Draw(mask)
    draw.polygon(face.pixels(outline(half)), round(255 * alpha))
    mouth = CIRCLE * (face.traits["mouth_width"] + 0.5, 6.5)
    draw.polygon(face.pixels(mouth + (0, face.traits["mouth_height"] + 1)), 0)
    x, y = face.rng.integers(0, 200, 2).tolist()  # other speckles each time
    speckles = _STUBBLE.crop((x, y, x + _SIZE[0], y + _SIZE[1]))
    face.image.paste(as_ink(color), mask=ImageChops.multiply(mask, speckles))


def _draw_hat(face: Face) -> None:
    if "Wearing_Hat" in face.has:
        width, color = face.traits["face_width"] + 6, pick(palette.CLOTHES, face.rng)
        dome = [(0, -78), (26, -73), (width - 3, -54), (width, -34), (width - 4, -25)]
        dome, band = outline([*dome, (20, -27), (0, -28)]), color * 0.72
        face.fill_round(dome, (0, -42), color, (0.88, 0.96, 1.0, 1.04))
        face.line([(-width, -33), (0, -37), (width, -33)], 11, band)
        if face.traits["style"] < 0:  # woolen, else with a brim
            face.ellipse((0, -79), (7, 7), band)
        else:
            face.lens((-width - 26, -28), (width + 26, -28), (-9, 3), color)


def _draw_earrings(face: Face) -> None:
    if "Wearing_Earrings" in face.has:
        u, v = face.traits["face_width"] + 2, 20 + face.rng.uniform(0, 9)
        metal = pick(palette.METALS, face.rng)
        face.stroke((u, 17), (u, v), 0, 1.5, metal, both=True)
        face.ellipse((u, v + 2.5), (3.6, 3.6), metal, both=True)


def _draw_glasses(face: Face) -> None:
    if "Eyeglasses" not in face.has:
        return
    traits, u = face.traits, max(face.traits["eye_spacing"], 17.0)
    frame = mix(DARK, palette.COPPER, 0.3 + 0.2 * traits["style"])
    rim = CIRCLE * (14.5, 11.0 + traits["style"])
    for side in (1, -1):
        face.polygon(rim + (side * u, 0.5), WHITE, 0.14)
        face.line(rim + (side * u, 0.5), 2.4, frame)
    for end in (traits["face_width"] + 1, -1 - traits["face_width"]):
        face.line([(math.copysign(u * 1.8, end), -1), (end, -2)], 2.2, frame)
    face.line([(14.5 - u, -1), (0, -2), (u - 14.5, -1)], 2.4, frame)
