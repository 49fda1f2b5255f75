"""Damaged, hostile and odd input, each through a whole build and a whole prediction.

A case has a name, its bytes or what makes them, and the outcome that is expected of it:
"" if it is accepted, the reason in `rejected.csv` if it is refused alone, or words of
the error that ends the program.
"""

import contextlib
import csv
import dataclasses
import io
import json
import re
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from schemas import celeba, example
from support import command
from support.errors import ExitCode
from support.framing import read_records
from support.images import decode_rgb
from tests.beam_pipelines.conftest import Builder, SmallCelebA, make_celeba
from tests.faults.table import Row

HEIGHT, WIDTH = 24, 20  # of the images of `make_celeba`
SECONDS = 30  # a case that takes longer hangs
MEMORY = 100  # MB that a forged image may take


@dataclasses.dataclass(frozen=True)
class Case:
    """One case of a catalogue.

    Attributes:
      name: in words.
      data: the file's bytes.
      build: the reason for which the build refuses it, "" if it takes it.
      predict: the same of the prediction, if it is another.
    """

    name: str
    data: bytes
    build: str
    predict: str | None = None

    @property
    def predicted(self) -> str:
        return self.build if self.predict is None else self.predict


# Images.

_PIXELS = np.kron(  # four colors
    np.array([[[200, 30, 30], [30, 200, 30]], [[30, 30, 200], [180, 180, 180]]]),
    np.ones((HEIGHT // 2, WIDTH // 2, 1)),
).astype(np.uint8)
_UPRIGHT = Image.fromarray(_PIXELS)
#: EXIF orientation -> how an upright image is stored with it.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encode(kind: str, image: Image.Image = _UPRIGHT, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    """The upright image, stored with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = _UPRIGHT
    if orientation in _STORED:
        stored = stored.transpose(_STORED[orientation])
    return encode("JPEG", stored, exif=exif, quality=95, subsampling=0)


def forge_jpeg(height: int, width: int, **options) -> bytes:
    """A small JPEG whose header claims another size."""
    data = bytearray(encode("JPEG", **options))
    frame = re.search(b"\xff[\xc0\xc2]", data).start()
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def forge_png(height: int, width: int) -> bytes:
    data = bytearray(encode("PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def many_fields() -> bytes:
    """A JPEG whose EXIF has thousands of fields, each of the same 60,000 bytes."""
    fields = [struct.pack("<HHLL", n, 1, 60_000, 0) for n in range(0x1000, 0x2000)]
    fields.append(struct.pack("<HHLHH", 0x0112, 3, 1, 1, 0))
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + b"".join(fields)
    segment = b"Exif\0\0" + tiff + bytes(15_000)
    head = b"\xff\xe1" + struct.pack(">H", len(segment) + 2)
    return _SMALL[:2] + head + segment + _SMALL[2:]


def many_scans() -> bytes:
    """A JPEG of 100 kB that makes a decoder go over 9 million pixels 500 times."""
    large = encode("JPEG", Image.new("RGB", (3_000, 3_000)), progressive=True)
    last = large[large.rindex(b"\xff\xda") : -2]
    return large[:-2] + last * 500 + large[-2:]


_SMALL = encode("JPEG", quality=50)
_PNG = "not a JPEG"
TURNED = [Case(f"EXIF orientation {n}", turned(n), "") for n in range(1, 9)]
FORGED = [
    Case("JPEG of 65500x65500", forge_jpeg(65_500, 65_500), "too large"),
    Case("JPEG of 1x65500", forge_jpeg(1, 65_500), "too large"),
    Case("JPEG of 7000x7000", forge_jpeg(7_000, 7_000), "truncated"),
    Case(
        "progressive JPEG of 7000x7000",
        forge_jpeg(7_000, 7_000, progressive=True, subsampling=0),
        "truncated",
    ),
    Case("JPEG of 0x0", forge_jpeg(0, 0), "damaged"),
    Case("JPEG of 4096 fields of 60 kB", many_fields(), ""),
    Case("PNG of 65500x65500", forge_png(65_500, 65_500), _PNG, "too large"),
    Case("JPEG of 500 scans", many_scans(), "too large"),
    Case("PNG of 7000x7000", forge_png(7_000, 7_000), _PNG, "damaged"),
]
IMAGES = [
    *(
        Case(f"JPEG cut at byte {length}", _SMALL[:length], "truncated")
        for length in range(16, len(_SMALL), 16)
    ),
    *TURNED,
    *FORGED,
    Case("empty file", b"", "empty"),
    Case("web page", b"<!DOCTYPE html><title>Quota", _PNG, "neither JPEG nor PNG"),
    Case("text", b"version https://git-lfs", _PNG, "neither JPEG nor PNG"),
    Case("NUL bytes", bytes(5_000), _PNG, "neither JPEG nor PNG"),
    Case("GIF", encode("GIF"), _PNG, "neither JPEG nor PNG"),
    Case("PNG", encode("PNG"), _PNG, ""),
    Case("CMYK", encode("JPEG", _UPRIGHT.convert("CMYK")), "color space"),
    Case("JPEG 2000 times padded", _SMALL[:2] + b"\xff" * 2_000 + _SMALL[2:], ""),
]

_FLAGS = ("--max_bad_fraction=1", "--balance=none", "--split=random")
_FLAGS += ("--keep_duplicates",)  # many cases have the same pixels


def build_images(folder: Path, packed: bool) -> list[str]:
    """Builds a dataset from the images; tells what came out otherwise than expected."""
    small = make_celeba(folder / "celeba", len(IMAGES) + 40)
    for number, case in enumerate(IMAGES, 1):
        small.image(number).write_bytes(case.data)
    if packed:
        pack(small)
    run = Program.build(folder, small.folder, *_FLAGS)
    names = {small.image(n).name: case for n, case in enumerate(IMAGES, 1)}
    wrong = run.complaints() + _wrong_reasons(run.rejected(), names)
    pixels = run.pixels()
    for name, case in names.items():
        if case in TURNED and not _is_upright(pixels.get(name)):
            wrong.append(f"{case.name}: other pixels")
    return wrong


def _is_upright(pixels: np.ndarray | None) -> bool:
    if pixels is None or pixels.shape != _PIXELS.shape:
        return False
    return np.abs(pixels - _PIXELS.astype(int)).mean() < 3


def pack(small: SmallCelebA) -> None:
    """Moves the images into a zip file."""
    images = small.folder / celeba.IMAGE_FOLDER
    with zipfile.ZipFile(small.folder / celeba.IMAGE_ARCHIVE, "w", 8) as archive:
        for path in images.iterdir():
            archive.write(path, path.name)
            path.unlink()
    images.rmdir()


def predict_images(folder: Path, run_dir: Path) -> list[str]:
    """The same for the prediction, whose pixels must be those of the build."""
    names = {f"{number:03d}.jpg": case for number, case in enumerate(IMAGES)}
    (folder / "in").mkdir()
    for name, case in names.items():
        (folder / "in" / name).write_bytes(case.data)
    run = Program.predict(folder, run_dir, folder / "in")
    wrong = run.complaints() + _wrong_reasons(run.skipped(), names, predicted=True)
    same = [run.probabilities().get(n) for n, case in names.items() if case in TURNED]
    if None in same or np.ptp(same) > 0.01:
        wrong.append(f"EXIF orientations are predicted differently: {same}")
    return wrong


def _wrong_reasons(
    found: dict[str, str], names: dict[str, Case], predicted: bool = False
) -> list[str]:
    """Compares file name -> reason with what each case expects."""
    wrong = []
    for name, case in names.items():
        expected = case.predicted if predicted else case.build
        if found.get(name, "") not in expected.split("|"):
            wrong.append(f"{case.name}: {found.get(name)!r}, expected {expected!r}")
    return wrong + [f"{name}: {found[name]}" for name in found.keys() - names.keys()]


@dataclasses.dataclass(frozen=True)
class Program:
    """A program that has ended.

    Attributes:
      output: what it wrote.
      code: its exit code.
      stderr: its lines.
      seconds: that it took.
      others: files next to its output that were not there before.
    """

    output: Path
    code: int
    stderr: str
    seconds: float
    others: set[Path]

    @classmethod
    def build(cls, folder: Path, celeba_dir: Path, *flags: str) -> "Program":
        output = folder / "out"
        builder = Builder(celeba_dir, output)
        return cls._run(folder, output, lambda: builder(*flags))

    @classmethod
    def predict(cls, folder: Path, run_dir: Path, *images: Path) -> "Program":
        from trainer import predict

        output = folder / "out.json"
        words = [f"--run_dir={run_dir}", f"--output={output}", *map(str, images)]
        return cls._run(
            folder, output, lambda: command.guard(predict.main, ["predict", *words])
        )

    @classmethod
    def _run(cls, folder: Path, output: Path, call: Callable[[], int]) -> "Program":
        before, start = set(folder.rglob("*")), time.monotonic()
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = call()
        seconds = time.monotonic() - start
        more = set(folder.rglob("*")) - before - {output, *output.rglob("*")}
        return cls(output, code, err.getvalue(), seconds, more)

    def complaints(self, code: ExitCode = ExitCode.OK, words: str = "") -> list[str]:
        """The problems of its end, given the exit code and the error expected."""
        errors = [line for line in self.stderr.splitlines() if "error: " in line]
        last = self.stderr.splitlines()[-2:]
        checks = {
            f"exit {self.code}: {self.stderr}": self.code != code,
            f"error: {self.stderr}": len(errors) != bool(code),
            f"expected {words!r}: {self.stderr}": not re.search(words, self.stderr),
            f"no cause and remedy: {last}": code
            and not (last[0].startswith("error: ") and last[1].startswith("       ")),
            f"an output in spite of exit {self.code}": code and self.output.exists(),
            f"other files: {self.others}": self.others,
            f"{self.seconds:.0f} s": self.seconds > SECONDS,
        }
        return [complaint for complaint, is_wrong in checks.items() if is_wrong]

    def rejected(self) -> dict[str, str]:
        """File name -> reason, of a build."""
        if self.code:
            return {}
        with open(self.output / "rejected.csv", newline="") as file:
            return {row["name"]: row["reason"] for row in csv.DictReader(file)}

    def pixels(self) -> dict[str, np.ndarray]:
        """File name -> pixels, of a build."""
        found = {}
        for path in self.output.glob("*.tfrecord-*-of-?????"):
            for record in map(example.decode, read_records(path.read_bytes())):
                found[record.image_id] = decode_rgb(record.image)
        return found

    def skipped(self) -> dict[str, str]:
        """File name -> reason, of a prediction."""
        rows = json.loads(self.output.read_text())["skipped"] if not self.code else []
        return {Path(row["path"]).name: row["error"].split(":")[0] for row in rows}

    def probabilities(self) -> dict[str, float]:
        """File name -> probability, of a prediction."""
        if self.code:
            return {}
        rows = json.loads(self.output.read_text())["predictions"]
        return {Path(row["image_id"]).name: row["probability"] for row in rows}


# Zip files.


def _patch(data: bytearray, name: str, place: int, value: bytes, local: int = -1):
    """Overwrites bytes of a member's entry, and of its local header, if given."""
    for mark, at, length in ((b"PK\1\2", place, 46), (b"PK\3\4", local, 30)):
        start = data.find(name.encode())
        while at >= 0 and data[start - length : start - length + 4] != mark:
            start = data.index(name.encode(), start + 1)
        if at >= 0:
            data[start - length + at : start - length + at + len(value)] = value


MEMBERS = [
    Case("encrypted member", b"", "encrypted", "unreadable"),
    Case("unknown compression", b"", "compression", "unreadable"),
    Case("decompression bomb", bytes(20_000_000), "damaged"),
    Case("member that claims 100 MB", b"", "too large"),
    Case("member cut inside", b"", "damaged"),
    Case("member without its header", b"", "damaged"),
    Case("symlink", b"../../../etc/passwd", _PNG, "neither JPEG nor PNG"),
    Case("zip file as an image", b"PK\3\4" + bytes(99), _PNG, "neither JPEG nor PNG"),
    Case("name with ../", b"", ""),
    Case("absolute name", b"", ""),
    Case("name with a drive", b"", ""),
    Case("two members of one name", b"", ""),
    Case("two entries of one member", b"", "", "|damaged"),
]


def hostile_zip(small: SmallCelebA) -> bytes:
    """The images as a zip file, the first of them as `MEMBERS` says."""
    names = [small.image(number).name for number in range(1, small.images + 1)]
    good = small.image(small.images).read_bytes()
    places = {8: "../../../", 9: "/tmp/", 10: "C:\\faces\\"}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, name in enumerate(names):
            data = MEMBERS[number].data if number < len(MEMBERS) else good
            info = zipfile.ZipInfo(places.get(number, "") + name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if number == 6:
                info.create_system, info.external_attr = 3, 0o120777 << 16
            if number == 11:
                archive.writestr(name, b"the older one")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # two of one name
                archive.writestr(info, data or good)
    data = bytearray(file.getvalue())
    _patch(data, names[0], 8, b"\1", 6)
    _patch(data, names[1], 10, b"\x63", 8)
    _patch(data, names[2], 24, struct.pack("<L", len(good)), 22)
    _patch(data, names[3], 24, struct.pack("<L", 100_000_000), 22)
    _patch(data, names[4], 20, struct.pack("<L", 50), 18)
    _patch(data, names[5], 42, b"\1\1")
    entry = data.rindex(names[13].encode()) - 4
    _patch(data, names[12], 42, bytes(data[entry : entry + 4]))
    return bytes(data)


def _zip(*names: str, data: bytes = _SMALL) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, data)
    return file.getvalue()


_TWO = _zip("000001.jpg", "000002.jpg")
_LOCKED = bytearray(_zip("000001.jpg"))
_patch(_LOCKED, "000001.jpg", 8, b"\1", 6)
_NOT_COMPLETE = "is not a complete zip file"
#: Whole files that are refused: words of the build's error and of the prediction's.
ZIPS = [
    Case("zip cut in the directory", _TWO[:-50], "is cut", _NOT_COMPLETE),
    Case("zip cut in the data", _TWO[:500], "is cut", _NOT_COMPLETE),
    Case("zip with a hole", _TWO[:400] + _TWO[500:], "is damaged: its list", ""),
    Case("zip without its begin", _TWO[600:], "is not a zip file but", ""),
    Case("zip in a zip", _zip("img_align_celeba.zip"), "Take img_al", "contains no"),
    Case("encrypted zip", bytes(_LOCKED), "by a password", "None of 1 images could"),
    Case(
        "one name in two folders",
        _zip("a/000001.jpg", "b/000001.jpg"),
        "two images of one name",
        "",
    ),
    Case("zip without a file", _zip(), "none of the 60 images", "contains no"),
    Case("RAR", b"Rar!\x1a\7" + bytes(99), "a RAR archive", _NOT_COMPLETE),
    Case("web page as zip", b"<html>Quota exceeded", "Quota exceeded", _NOT_COMPLETE),
    Case("empty zip", b"", "but an empty file", _NOT_COMPLETE),
]


def build_members(folder: Path) -> list[str]:
    """Builds from the hostile zip file; tells what came out otherwise than expected."""
    small, place = _zip_place(folder)
    place.write_bytes(hostile_zip(small))
    run = Program.build(folder, place, *_FLAGS)
    names = {small.image(n).name: case for n, case in enumerate(MEMBERS, 1)}
    return run.complaints() + _wrong_reasons(run.rejected(), names)


def build_zip(folder: Path, case: Case) -> list[str]:
    """Builds from a zip file that is refused whole."""
    _, place = _zip_place(folder)
    place.write_bytes(case.data)
    run = Program.build(folder, place)
    return run.complaints(ExitCode.INPUT_DATA, case.build)


def _zip_place(folder: Path) -> tuple[SmallCelebA, Path]:
    small = make_celeba(folder / "celeba")
    return small, small.folder / "faces.zip"


def predict_members(folder: Path, run_dir: Path) -> list[str]:
    small, place = _zip_place(folder)
    place.write_bytes(hostile_zip(small))
    run = Program.predict(folder, run_dir, place)
    names = {small.image(n).name: case for n, case in enumerate(MEMBERS, 1)}
    found = {name.rpartition("\\")[2]: why for name, why in run.skipped().items()}
    return run.complaints() + _wrong_reasons(found, names, predicted=True)


def predict_zip(folder: Path, run_dir: Path, case: Case) -> list[str]:
    (folder / "faces.zip").write_bytes(case.data)
    run = Program.predict(folder, run_dir, folder / "faces.zip")
    if not case.predicted:
        return run.complaints()
    return run.complaints(ExitCode.INPUT_DATA, case.predicted)


# Annotation files.


def to_csv(
    text: bytes, name: str = "image_id", numbers: bool = False, **options
) -> bytes:
    """The attributes as other programs write them."""
    rows = [line.split() for line in text.decode().splitlines()[1:]]
    rows[0].insert(0, name)
    if numbers:
        rows = [["" if not at else str(at), *row] for at, row in enumerate(rows)]
    file = io.StringIO()
    csv.writer(file, **options).writerows(rows)
    return file.getvalue().encode()


def reverse_columns(text: bytes) -> bytes:
    """The attributes, last one first."""
    header, *rows = [line.split() for line in text.splitlines()[1:]]
    rows = [header[::-1], *([row[0], *row[:0:-1]] for row in rows)]
    return b"\n".join(map(b" ".join, rows))


def _replace(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda text: text.replace(old, new, 1)


def _value(new: bytes) -> Callable[[bytes], bytes]:
    """Replaces the first value of the third image."""
    return lambda text: re.sub(rb"(?<=000003.jpg )( 1|-1)", new, text, count=1)


#: The attributes, spelt otherwise.
SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "CRLF": lambda text: text.replace(b"\n", b"\r\n"),
    "CR": lambda text: text.replace(b"\n", b"\r"),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "no final newline": lambda text: text.rstrip(),
    "empty lines at the end": lambda text: text + b"\n\n",
    "empty lines inside": lambda text: text.replace(b"\n", b"\n\n"),
    "blanks at the ends of lines": lambda text: text.replace(b"\n", b"  \n"),
    "no count": lambda text: text.split(b"\n", 1)[1],
    "tabs": lambda text: text.replace(b" ", b"\t"),
    "a name for the names": lambda text: b"image_id " + text.split(b"\n", 1)[1],
    "commas for blanks": lambda text: text.replace(b"  ", b" ").replace(b" ", b","),
    "Kaggle's CSV": to_csv,
    "blanks behind commas": lambda text: to_csv(text).replace(b",", b", "),
    "semicolons and a byte order mark, as Excel writes": lambda text: (
        b"\xef\xbb\xbf" + to_csv(text, delimiter=";")
    ),
    "all quoted": lambda text: to_csv(text, quoting=csv.QUOTE_ALL),
    "pandas' column of row numbers": lambda text: to_csv(text, numbers=True),
    "R's names of rows": lambda text: to_csv(text, quoting=csv.QUOTE_ALL, name=""),
    "values 0 and 1": lambda text: text.replace(b"-1", b" 0"),
    "columns in another order": reverse_columns,
}

_PAGE = b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title>"
_LFS = b"version https://git-lfs.github.com/spec/v1\noid 1"
_ANNEX = b"/annex/objects/MD5E-s26--0.txt\n"
#: In words, the file, what is done to it, and a pattern of the error.
WRONG: list[tuple[str, str, Callable[[bytes], bytes], str]] = [
    (name, "attributes", lambda text, content=content: content, words)
    for name, content, words in (
        ("Google Drive's page", _PAGE, "Google Drive's 'Quota exceeded' page"),
        ("HTML", b"<html>Sign in</html>", "a web page"),
        ("empty file", b"", "but an empty file"),
        ("NUL bytes", b"\0\1\2", "but a binary file"),
        ("pointer of LFS", _LFS, "Git LFS.*\n.*git lfs pull"),
        ("pointer of git-annex", _ANNEX, "of git-annex.*\n.*git annex get"),
        ("absolute paths", b"Path,Male\n/a/1.jpg,0\n", "'Path' .*\n.*called image_id"),
        ("2 attributes", b"image_id,Male,Bald\n1,0,1\n", "of 40 .* 38 are missing"),
        (
            "unknown name",
            b"image_id,Bald,Man\n1,1,1\n",
            "'Man' is not .*\n.*Choose one",
        ),
        ("header only", " ".join(celeba.ATTRIBUTES).encode() + b"\n", "has no rows"),
        ("no header", b"000001.jpg 1 -1\n", "expected the header"),
        ("a long line", b'"' + b"x" * 200_000 + b'",1\n', "expected the header"),
        ("Latin-1", b"5_o_Clock_Shadow\xff\n", ":1: the text is not UTF-8"),
    )
]
_ROW = b"000003.jpg "
WRONG += [
    (name, "attributes", change, f"list_attr_celeba.txt:{words}")
    for name, change, words in (
        ("wrong count", _replace(b"60\n", b"61\n"), "1 .* 61 rows, but 60 follow"),
        ("misspelt", _replace(b"Male ", b"Mail "), "2:.*'Mail'.*\n.*mean Male"),
        ("file column", _replace(b"5_o_C", b"file 5_o_C"), "2:.*'file'.*\n.*image_id"),
        ("missing attribute", _replace(b"Male ", b""), "2:.* 1 are missing.* as Male"),
        ("doubled attribute", _replace(b"Young", b"Male"), "2:.* 1 .*missing.*Young"),
        ("doubled name", _replace(_ROW, b"000002.jpg "), "5:.*already on line 4"),
        ("no name", _replace(_ROW, b""), "5:.*40 words, expected 41"),
        ("value 2", _value(b"2"), "5:.*'2' for 5_o_Clock_Shadow"),
        ("value 1.0", _value(b"1.0"), "5:.*'1.0' for 5_o_Clock_Shadow"),
        ("value True", _value(b"True"), "5:.*'True' for 5_o_Clock_Shadow"),
        ("empty value", _value(b""), "5:.*40 words, expected 41"),
        ("0 among -1", _value(b" 0"), "5:.*expected -1 or 1"),
        ("a line is cut", lambda text: text[:-20], "62:.*words, expected 41"),
        ("a NUL byte inside", _replace(_ROW, b"00\0"), "? is .* but a binary file"),
    )
]
_NAMED = b"000003.jpg 1000\n"
WRONG += [
    (f"identities: {name}", "identity", _replace(_NAMED, new + b"\n"), words)
    for name, new, words in (
        ("not a number", b"000003.jpg x", ":3:.*'x'"),
        ("negative", b"000003.jpg -7", ":3:.*'-7'"),
        ("too large", b"000003.jpg 4294967296", ":3:.*'4294967296'"),
        ("a name twice", b"000001.jpg 1000", ":3:.*already on line 1"),
        ("no number", b"000003.jpg", ":3:.* 1 words, expected 2"),
        ("absolute paths", b"/data/img/000003.jpg 1000", "59 of the 60 images"),
    )
]
WRONG += [
    (f"partition: {name}", "partition", _replace(b"000003.jpg 0", new), words)
    for name, new, words in (
        ("3", b"000003.jpg 3", ":3:.*'3' for .*from 0 to 2"),
        ("no number", b"000003.jpg", ":3:.* 1 words, expected 2"),
    )
]


def build_spelling(folder: Path, name: str) -> list[str]:
    """Builds from the attributes in another spelling; the shards must be the same."""
    small = make_celeba(folder / "celeba")
    text = small.attributes.read_bytes()
    shards = []
    for output, data in (("one", text), ("two", SPELLINGS[name](text))):
        small.attributes.write_bytes(data)
        run = Program.build(folder, small.folder)
        shards.append(Builder(small.folder, run.output).manifest.shards)
        run.output.rename(folder / output)
    return run.complaints() + ["other shards"] * (shards[0] != shards[1])


def build_wrong(folder: Path, case: tuple) -> list[str]:
    """Builds from a wrong annotation file."""
    _, file, change, words = case
    small = make_celeba(folder / "celeba")
    path = getattr(small, file)
    text = path.read_bytes()
    path.write_bytes(change(text))
    changed = [] if path.read_bytes() != text else ["nothing was changed"]
    split = "official" if file == "partition" else "identity"
    run = Program.build(folder, small.folder, f"--split={split}")
    return run.complaints(ExitCode.INPUT_DATA, words) + changed


# The table.

_REASON = "a reason for each; all others are used"
_EXIT = "exit 3, a line of cause and one of remedy"


def rows(every: int) -> Iterator[Row]:
    """A row for each catalogue and program."""
    from tests.faults import operations  # TensorFlow, which tests of the build lack

    run_dir = operations.runs().finished
    for fault, sees, count, checks in (
        ("images, build", _REASON, len(IMAGES), [(build_images, False)]),
        ("images in a zip, build", _REASON, len(IMAGES), [(build_images, True)]),
        ("images, prediction", _REASON, len(IMAGES), [(predict_images, run_dir)]),
        ("members of a zip, build", _REASON, len(MEMBERS), [(build_members,)]),
        (
            "members of a zip, prediction",
            _REASON,
            len(MEMBERS),
            [(predict_members, run_dir)],
        ),
        ("zip files, build", _EXIT, 0, [(build_zip, case) for case in ZIPS]),
        (
            "zip files, prediction",
            _EXIT,
            0,
            [(predict_zip, run_dir, case) for case in ZIPS],
        ),
        ("annotations, wrong", _EXIT, 0, [(build_wrong, case) for case in WRONG]),
        (
            "annotations, spelt otherwise",
            "the same shards",
            0,
            [(build_spelling, name) for name in SPELLINGS],
        ),
        (
            "forged headers, memory",
            f"less than {MEMORY} MB",
            len(FORGED),
            [(memory_of_forged, run_dir)],
        ),
    ):
        chosen = checks[::every]
        lost = [what for check in chosen for what in in_new_folder(*check)]
        yield Row(fault, count or len(chosen), lost, sees)


def in_new_folder(check: Callable[..., list[str]], *arguments) -> list[str]:
    """Does a check in a folder so deep that ../ leads into another new one."""
    with tempfile.TemporaryDirectory() as folder:
        deep = Path(folder, "1", "2", "3", "4")
        deep.mkdir(parents=True)
        wrong = check(deep, *arguments)
        others = {path for path in Path(folder).rglob("*") if not path.is_dir()}
        outside = sorted(map(str, others - set(deep.rglob("*"))))
        return wrong + [f"{arguments}: wrote {path}" for path in outside]


def memory_of_forged(folder: Path, run_dir: Path) -> list[str]:
    """The memory that both programs take for forged headers, if it is too much."""
    small = make_celeba(folder / "celeba")
    Program.build(folder, small.folder)
    (folder / "out").rename(folder / "without")
    Program.predict(folder, run_dir, small.image(1))
    for number, case in enumerate(FORGED, 1):
        small.image(number).write_bytes(case.data)
    images = small.folder / celeba.IMAGE_FOLDER
    grown = {
        "build": _grown(lambda: Program.build(folder, small.folder, *_FLAGS)),
        "prediction": _grown(lambda: Program.predict(folder, run_dir, images)),
    }
    return [f"{name}: {size} MB" for name, size in grown.items() if size > MEMORY]


def _grown(work: Callable[[], Program]) -> int:
    """The MB by which this process was larger than before while it worked."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = _memory("VmRSS")
    complaints = work().complaints()
    return _memory("VmHWM") - before if not complaints else sys.maxsize


def _memory(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) >> 10
