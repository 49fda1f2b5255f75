"""A small CelebA whose dataset is pinned byte by byte."""

import base64
import hashlib

from schemas import celeba
from schemas.manifest import FILE_NAME
from tests.beam_pipelines.conftest import Builder

#: An 8x8 gray JPEG. Images differ in a comment, so no encoder takes part.
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAP////////////////////////////////////////////////"
    "//////////////////////////////////////wAALCAAIAAgBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAA"
    "AAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwR"
    "VS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqD"
    "hIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6e"
    "rx8vP09fb3+Pn6/9oACAEBAAA/ACv/2Q=="
)

#: sha256 over the shards and the manifest of `make_golden` with `GOLDEN_FLAGS`. It
#: changes only with the format or the selection: then VERSION in the manifest does too.
GOLDEN = "de0ac7a3dd2f8530e6fcded3a41d709f4f97dc7d2eb92e6fd67ee966feb7aee8"
GOLDEN_FLAGS = ("--num_examples=60", "--num_shards=2", "--seed=7")


def commented(number):
    """The JPEG with a comment that holds a number: other bytes, the same pixels."""
    text = f"image {number}".encode()
    return JPEG[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + JPEG[2:]


def make_golden(tmp_path):
    """A builder on 120 images of 40 people."""
    folder = tmp_path / "celeba"
    (folder / celeba.IMAGE_FOLDER).mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, 121)]
    rows, people = [], []
    for index, name in enumerate(names):
        (folder / celeba.IMAGE_FOLDER / name).write_bytes(commented(index))
        # Fixed arithmetic, no random generator that another version may change.
        values = [
            1 if (index * 7 + column * 5) % 11 < 5 else -1 for column in range(40)
        ]
        rows.append(" ".join([name, *map(str, values)]))
        people.append(f"{name} {index // 3 + 1}")
    header = f"120\n{' '.join(celeba.ATTRIBUTES)}\n"
    (folder / celeba.ATTRIBUTES_FILE).write_text(header + "\n".join(rows))
    (folder / celeba.IDENTITY_FILE).write_text("\n".join(people))
    return Builder(folder, tmp_path / "out")


def digest(folder):
    """sha256 over names and bytes of the shards and the manifest."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if ".tfrecord-" in path.name or path.name == FILE_NAME:
            total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
