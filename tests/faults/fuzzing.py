"""Random input to everything that parses what a stranger may have written.

Every property says: a right value or one of our own errors, nothing else. The suite
tries a fixed few examples of each; `make faults` tries many others.
"""

import dataclasses
import hashlib
import io
import json
import os
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import tensorflow as tf
from hypothesis import example as with_example
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from beam_pipelines.config import BuildConfig
from beam_pipelines.sources import annotations
from beam_pipelines.sources.archive import ZipSource
from beam_pipelines.sources.files import File
from beam_pipelines.synthesize import SynthesizeConfig
from beam_pipelines.verify import VerifyConfig
from beam_pipelines.writing import options as beam_options
from schemas import example
from schemas.dataset import About, DataSet
from schemas.manifest import Manifest, ManifestError, Shard
from support import command, framing, images
from support.errors import ExitCode, UserError
from support.images import BadImage
from tests.faults.table import Row
from trainer.compare import CompareConfig
from trainer.config import TrainConfig
from trainer.evaluate import EvaluateConfig
from trainer.export import ExportConfig
from trainer.inference import images as inference
from trainer.predict import PredictConfig
from trainer.subgroups import SubgroupsConfig
from trainer.sweep import SweepConfig

EXAMPLES = 10_000  # of each property in `make faults`

#: What hypothesis keeps for its next start, which would else be in the repository.
_STORAGE = os.path.join(tempfile.gettempdir(), "celeba-hypothesis")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", _STORAGE)

SHAPES = DataSet(
    About("shapes", "Shapes", "Anyone may use them.", "https://example.org"),
    ("Round", "Male", "Red"),
    *("images", "images.zip", "list_attr_celeba.txt"),
)
_EDGES = (0, 1, 2, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 62)
_NUMBERS = [
    struct.pack(order + kind, number)
    for number in (*_EDGES, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
    for order in "<>"
    for kind in "HLQ"
    if number < 1 << 8 * struct.calcsize(f"<{kind}")
]


@st.composite
def edited(draw, originals, tokens=()):
    """One of some files with a few bytes replaced, inserted or removed."""
    data = bytearray(draw(st.sampled_from(originals)))
    token = st.binary(max_size=6)
    if tokens:
        token = st.one_of(st.sampled_from(tokens), token)
    for _ in range(draw(st.integers(0, 4))):
        at, new = draw(st.integers(0, len(data))), draw(token)
        cut = draw(st.sampled_from((len(new), 0, 1, 1 << 20)))
        data[at : at + cut] = new
    return bytes(data)


# Annotation files.

_NAMES = st.text("ab1._-ü日", min_size=1, max_size=6)
_SEPARATORS = (b" ", b"  ", b"\t", b",", b", ", b";")
_WORDS = (
    *(b" ", b"\t", b",", b";", b'"', b"\n", b"\r", b"\r\n", b"\0", b"\xef\xbb\xbf"),
    *(b"-1", b"0", b"1", b"2", b"1.0", b"nan", b"true", b"image_id", b"Male", b"99999"),
    *(b"\xff", b"\xe2\x80\xa8", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xc2\xa0", b"#"),
)


@st.composite
def tables(draw):
    """Names, bits, and a text that spells them as some program does."""
    names = draw(st.lists(_NAMES, min_size=1, max_size=5, unique=True))
    bits = draw(st.lists(st.integers(0, 7), min_size=len(names), max_size=len(names)))
    low = draw(st.sampled_from(("-1", "0")))
    separator = draw(st.sampled_from(_SEPARATORS))
    words = [
        [name, *(low if not bit >> n & 1 else "1" for n in range(3))]
        for name, bit in zip(names, bits, strict=True)
    ]
    header = ["image_id"] if draw(st.booleans()) or separator in b",;, " else []
    lines = [
        separator.join(word.encode() for word in row)
        for row in ([*header, *SHAPES.attributes], *words)
    ]
    if draw(st.booleans()):
        lines.insert(0, str(len(names)).encode())
    newline = draw(st.sampled_from((b"\n", b"\r\n", b"\r")))
    text = newline.join(lines) + draw(st.sampled_from((b"", newline, newline * 2)))
    return names, bits, draw(st.sampled_from((b"", b"\xef\xbb\xbf"))) + text


@given(tables())
def attribute_tables_are_read_in_every_spelling(table):
    names, bits, text = table
    read = annotations.read_attributes(_Text(text), SHAPES)
    assert [name.decode() for name in read.names] == names
    columns = [annotations.attribute_bits(read.values, n) for n in range(3)]
    assert sum(column << n for n, column in enumerate(columns)).tolist() == bits


@given(
    edited(
        [
            b"2\nRound Male Red\na.jpg 1 -1 1\nb.jpg -1 1 1\n",
            b"image_id,Round,Male,Red\na.jpg,1,0,1\nb.jpg,0,1,1\n",
        ],
        _WORDS,
    )
)
def attribute_tables_are_read_or_refused(text):
    _check_table(lambda: annotations.read_attributes(_Text(text), SHAPES))


@given(
    edited(
        [b"a.jpg 1\nb.jpg 2\nc.jpg 2\n", b"image_id;n\n\na.jpg;1\nb.jpg;0\n"], _WORDS
    )
)
def numbers_are_read_or_refused(text):
    _check_table(lambda: annotations.read_numbers(_Text(text), 2))


@dataclasses.dataclass(frozen=True)
class _Text(File):
    """A file in memory."""

    path: bytes

    def read_bytes(self) -> bytes:
        return self.path

    @property
    def name(self) -> str:
        return "text"

    def __str__(self) -> str:
        return "text"


def _check_table(read):
    try:
        table = read()
    except UserError as error:
        check_error(error, ExitCode.INPUT_DATA)
        return
    assert len(set(table.names.tolist())) == len(table) == len(table.values) > 0
    assert all(table.names) and b"".join(table.names.tolist()).decode()
    assert table.values.min() >= 0 and table.values.max() <= (7 << 5)


def check_error(error: UserError, *codes: ExitCode) -> None:
    """Cause, remedy, and the exit code expected."""
    assert error.exit_code in codes, error
    assert error.cause and error.remedy


# Manifests.

_SHARD = Shard("celeba-train.tfrecord-00000-of-00001", "train", 8, 9, "ab" * 32, (3, 5))
MANIFEST = Manifest(
    dataset=SHAPES.about,
    attributes=SHAPES.attributes,
    attribute="Male",
    image_shape=(218, 178, 3),
    config={"seed": 0, "split_fractions": [0.64, 0.16, 0.2], "image_size": None},
    class_weights=(0.75, 1.5),
    sources={"images": {"count": 8, "sha256": "cd" * 32}},
    shards=(_SHARD, dataclasses.replace(_SHARD, name="other", split="test")),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def documents(draw):
    """The manifest with some values replaced or removed, and the digest of that."""
    document = json.loads(MANIFEST.to_json())
    for _ in range(draw(st.integers(0, 3))):
        place, key = document, draw(st.sampled_from(sorted(document)))
        while (
            isinstance(place[key], dict | list) and place[key] and draw(st.booleans())
        ):
            place = place[key]
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(keys))
        place[key] = draw(_JSON)
        if draw(st.booleans()) and draw(st.booleans()) and place is not document:
            del place[key]
    document.pop("digest", None)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    document["digest"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(document)


@given(
    documents()
    | edited([MANIFEST.to_json().encode()], [b"1e999", b"NaN", b"{", b"[" * 300]).map(
        lambda text: text.decode("utf-8", "replace")
    )
)
def manifests_are_read_or_refused(text):
    try:
        manifest = Manifest.from_json(text)
    except ManifestError as error:
        assert str(error)
        return
    assert Manifest.from_json(manifest.to_json()).to_json() == manifest.to_json()
    assert all(
        shard.name not in (".", "..") and "/" not in shard.name
        for shard in manifest.shards
    )


# Records.

_INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
_EXAMPLES = st.builds(
    example.Example,
    image=st.binary(max_size=300),
    label=_INT64,
    image_id=st.text(st.characters(codec="utf-8"), max_size=8),
    identity=_INT64,
    attributes=st.lists(st.sampled_from((0, 1)), min_size=1, max_size=200).map(bytes),
)
RECORD = example.encode(example.Example(b"\xff\xd8", 1, "1.jpg", -1, bytes([0, 1, 1])))


@given(_EXAMPLES)
def examples_survive(record):
    assert example.decode(example.encode(record)) == record
    assert example.peek_image_id(example.encode(record)) in (record.image_id, None)


@with_example(b"\n" + b"\x80" * 2_000_000 + b"\1")  # quadratic time
@given(edited([RECORD], [b"\x80" * 20, b"\xff" * 9 + b"\1"]))
def records_are_decoded_or_refused(data):
    example.peek_image_id(data)
    try:
        decoded = example.decode(data)
    except example.DecodeError:
        return
    assert example.encode(decoded) == data


@given(edited([framing.frame(RECORD) * 2], _NUMBERS))
def tfrecords_are_read_or_refused(data):
    try:
        records = list(framing.read_records(data))
    except framing.DamagedRecord:
        return
    assert b"".join(map(framing.frame, records)) == data


# Images.


def _image(kind: str, mode: str = "RGB", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (17, 13, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


JPEGS = [
    _image("JPEG", exif=_exif(6), quality=30),
    _image("JPEG", "L", exif=_exif(3), quality=30),
    _image("JPEG", progressive=True, quality=30),
    _image("JPEG", "CMYK", quality=30),
    _image("JPEG", subsampling="4:4:4", restart_marker_blocks=1, quality=30),
]
PNGS = [
    _image("PNG", "P", exif=_exif(6)),
    _image("PNG", "RGBA"),
    _image("PNG", "1", transparency=0),
    _image("PNG", "LA"),
]
_KINDS = bytes.fromhex("00c0c1c2c4c8c9caccd0d8d9dadbdde1edeeff")  # of segments
_MARKERS = [b"\xff" + bytes([kind]) for kind in _KINDS]


@given(edited(JPEGS, [*_MARKERS, *_NUMBERS]), st.sampled_from((None, (8, 9), (17, 13))))
def jpegs_are_prepared_or_refused(data, size):
    """All that the build accepts the trainer decodes, with the size that it is told."""
    try:
        prepared, shape, _ = images.prepare_jpeg(data, size)
    except BadImage as error:
        assert error.reason and error.detail
        return
    assert size in (None, shape)
    pixels = images.decode_rgb(prepared)
    assert pixels.shape == (*shape, 3)
    decoded = tf.io.decode_jpeg(prepared, 3, dct_method="INTEGER_ACCURATE").numpy()
    assert decoded.shape == (*shape, 3)
    assert np.abs(decoded.astype(int) - pixels).max() <= 1


@st.composite
def pngs(draw):
    """A PNG with changes, the checksums of its chunks right nevertheless."""
    data = draw(edited(PNGS, [b"IHDR", b"tRNS", b"eXIf", b"IDAT", *_NUMBERS]))
    if draw(st.booleans()):
        return data
    out, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        chunk = data[at + 4 : at + 8 + length]
        out += [data[at : at + 4], chunk, struct.pack(">I", zlib.crc32(chunk))]
        at += 12 + length
    return b"".join(out)


@given(pngs() | edited(JPEGS, [*_MARKERS, *_NUMBERS]))
def images_are_predicted_or_refused(data):
    try:
        pixels = inference.decode(data)
    except BadImage as error:
        assert error.reason and error.detail
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.size
    assert inference.on_white(pixels).shape == (*pixels.shape[:2], 3)


# Zip files.


def _zip(method: int, *names: str, limit: int = 1 << 31, comment: bytes = b"") -> bytes:
    original, zipfile.ZIP64_LIMIT = zipfile.ZIP64_LIMIT, limit
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.comment = comment
        for name in names:
            archive.writestr(name, JPEGS[1][:40] * 3)
    zipfile.ZIP64_LIMIT = original
    return file.getvalue()


ZIPS = [
    _zip(zipfile.ZIP_STORED, "a/1.jpg", "b.jpg"),
    _zip(zipfile.ZIP_DEFLATED, "ü.jpg", "2.png", "3.txt", comment=b"a comment"),
    _zip(zipfile.ZIP_DEFLATED, "1.jpg", "2.jpg", limit=20),
    b"in front" + _zip(zipfile.ZIP_DEFLATED, "1.jpg", limit=20),
]
_PARTS = [
    *(b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"\1\0\x10\0"),
    *(b"/", b"up\x0b\0\1", b"\x99\0", b"\xff.jpg", b"\0"),
]
_LOCATOR_AT = ZIPS[2].index(b"PK\6\7") + 8  # a place in the file
_NAME_AT = ZIPS[1].index(b"PK\1\2") + 28  # lengths of the name and of the extra fields


@with_example(ZIPS[1][:_NAME_AT] + b"\0\0\6" + ZIPS[1][_NAME_AT + 3 :])  # IndexError
@with_example(
    ZIPS[2][:_LOCATOR_AT] + b"\xff" * 8 + ZIPS[2][_LOCATOR_AT + 8 :]
)  # OverflowError
@given(edited(ZIPS, [*_PARTS, *_NUMBERS]))
def zip_files_are_read_or_refused(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.zip")
        path.write_bytes(data)
        _read_zip_in_build(ZipSource(File(str(path))))
        _read_zip_in_prediction(str(path))
        assert os.listdir(folder) == ["a.zip"]


def _read_zip_in_build(source: ZipSource) -> None:
    try:
        listing = source.list()
    except UserError as error:
        check_error(error, ExitCode.INPUT_DATA)
        return
    assert (listing.sizes >= 0).all() and listing.archive_bytes
    for name in listing.names.tolist():
        try:
            text = name.decode()
        except UnicodeDecodeError:
            continue  # it is in no annotation file
        try:
            source.read(text)
        except BadImage:
            continue


def _read_zip_in_prediction(path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = inference.find([path])
        except UserError as error:
            check_error(error, ExitCode.INPUT_DATA)
            return
        for image, name in zip(found, inference.image_ids(found), strict=True):
            assert name.encode()
            try:
                image.load()
            except BadImage:
                continue


# Options.

CONFIGS = (
    *(BuildConfig, SynthesizeConfig, VerifyConfig, TrainConfig, PredictConfig),
    *(EvaluateConfig, ExportConfig, CompareConfig, SubgroupsConfig, SweepConfig),
)
_VALUES = (
    *("", "0", "1", "-1", "0.5", "2", "3,5", "1e400", "nan", "inf", "-inf", "1e-320"),
    *("9" * 30, "9" * 5000, "0x10", "1_0", "٣", "²", "0.2,0.3,0.5", "nan,nan,nan"),
    *("true", "no", "cpu", "exact", "none", "random", "official", "transfer"),
    *("scratch", "s3://b/x", "~", "/", ".", "..", "[a]", "a\nb", "日本", "\x1b[2J"),
    *("imagenet", "all", "vgg16", "googlenet", "keras", "onnx", "savedmodel", "a.csv"),
    *("Young=1", "Young=1,Young=-1", "=1", "Young", "Male", "Male=1", "=", ",", "a,b"),
    *("224,224", "96"),
)


@st.composite
def command_lines(draw):
    """A program's options and words that may set them."""
    config = draw(st.sampled_from(CONFIGS))
    names = [field.name for field in dataclasses.fields(config)]
    value = st.sampled_from(_VALUES) | st.text(max_size=4) | st.integers().map(str)
    pairs = draw(st.lists(st.tuples(st.sampled_from(names), value), max_size=4))
    if config in (PredictConfig, EvaluateConfig, ExportConfig, SubgroupsConfig):
        pairs = [("run_dir", "run"), ("data_dir", "d"), ("format", "keras")][
            : 1 + 2 * (config in (EvaluateConfig, ExportConfig))
        ] + pairs
        pairs = [pair for pair in pairs if pair[0] in names]
    return config, [f"--{name}={value}" for name, value in pairs]


@with_example((BuildConfig, [f"--image_size={'9' * 5_000}"]))  # ValueError
@with_example((TrainConfig, ["--run_dir=a\nb"]))  # stored as two lines
@with_example((PredictConfig, ["--run_dir=a", "--output=\0"]))  # ValueError
@given(command_lines())
def options_make_a_configuration_or_exit_2(line):
    config, words = line
    try:
        made = command.parse_config(config, ["program", *words])
    except UserError as error:
        check_error(error, ExitCode.USAGE, ExitCode.OUTPUT)
        return
    if config is TrainConfig:  # a run's options are stored with it
        with tempfile.NamedTemporaryFile("w", suffix=".flags") as file:
            file.write(command.flags_text(made))
            file.flush()
            words = ["program", f"--flagfile={file.name}"]
            assert command.parse_config(config, words) == made


_BEAM = (
    *("--runner", "--direct_num_workers", "--direct_running_mode", "--project", "-"),
    *("--region", "--temp_location", "--job_endpoint", "--environment_type", "--"),
    *("--setup_file", "--num_workers", "--dask_client_address", "--flink_master"),
    *("--streaming", "--x", "x"),
)
_RUNNERS = (
    *("DirectRunner", "DaskRunner", "PrismRunner", "DataflowRunner", "SparkRunner"),
    *("flink", "portable", "in_memory"),
)


@with_example([("--runner", "", "")])  # SystemExit of `argparse`
@given(
    st.lists(
        st.tuples(
            st.sampled_from(_BEAM),
            st.sampled_from(("", "=")),
            st.sampled_from((*_VALUES, *_RUNNERS)),
        )
    )
)
def options_of_beam_are_taken_or_exit_2(pairs):
    words = [name + equals + (value if equals else "") for name, equals, value in pairs]
    try:
        options = beam_options.parse(words, ["celeba_dir"])
        beam_options.check_dataflow(options, {"celeba_dir": "x", "output_dir": "y"})
    except UserError as error:
        check_error(error, ExitCode.USAGE, ExitCode.OUTPUT)


PROPERTIES = (
    attribute_tables_are_read_in_every_spelling,
    attribute_tables_are_read_or_refused,
    numbers_are_read_or_refused,
    manifests_are_read_or_refused,
    examples_survive,
    records_are_decoded_or_refused,
    tfrecords_are_read_or_refused,
    jpegs_are_prepared_or_refused,
    images_are_predicted_or_refused,
    zip_files_are_read_or_refused,
    options_make_a_configuration_or_exit_2,
    options_of_beam_are_taken_or_exit_2,
)


def settings(examples: int, derandomize: bool) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=examples,
        derandomize=derandomize,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def rows(every: int) -> Iterator[Row]:
    """A row for each property."""
    for check in PROPERTIES:
        lost = []
        try:
            settings(EXAMPLES // every, derandomize=False)(check)()
        except (Exception, SystemExit, BaseExceptionGroup) as error:
            lost = [repr(error)]
        name = check.__name__.replace("_", " ")
        yield Row(
            f"random: {name}", EXAMPLES // every, lost, "a value or one clear line"
        )
