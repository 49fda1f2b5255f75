"""What is no usable JPEG never enters a dataset, from a folder or from a zip file."""

import csv
import io
import struct
import zipfile

import pytest
import simplejpeg
from PIL import Image

from schemas import celeba, example
from support.errors import ExitCode
from support.framing import read_records
from tests.beam_pipelines.conftest import jpeg


def as_file(kind: str, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 24)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def forged() -> bytes:
    data = bytearray(jpeg(0))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(data)


BAD = {
    1: (as_file("PNG"), "not a JPEG", "a PNG"),
    2: (b"<!DOCTYPE html><title>Quota exceeded</title>", "not a JPEG", "web page"),
    3: (jpeg(0)[:-40], "truncated", ""),
    4: (as_file("JPEG", "CMYK"), "color space", "CMYK"),
    5: (forged(), "too large", "65500x65500"),
    6: (b"", "empty", "0 bytes"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_bad_images_are_listed_and_turned_ones_are_upright(
    builder, small_celeba, packed
):
    for number, (data, _, _) in BAD.items():
        small_celeba.image(number).write_bytes(data)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.new("RGB", (24, 20), "red")  # stored lying: upright it is 24x20
    turned.save(small_celeba.image(7), exif=exif, quality=95)
    if packed:
        folder = small_celeba.folder / celeba.IMAGE_FOLDER
        with zipfile.ZipFile(folder.with_suffix(".zip"), "w", 8) as archive:
            for path in folder.iterdir():
                archive.write(path, path.name)
                path.unlink()
        folder.rmdir()
    flags = ("--max_bad_fraction=0.2", "--balance=none")
    assert builder(*flags) == ExitCode.OK
    with open(builder.output / "rejected.csv", newline="") as file:
        rejected = list(csv.DictReader(file))
    assert [row["name"] for row in rejected] == [f"{n:06d}.jpg" for n in BAD]
    for row, (_, reason, detail) in zip(rejected, BAD.values(), strict=True):
        assert row["reason"] == reason and detail in row["detail"]
    records = {}
    for shard in builder.manifest.shards:
        for record in read_records((builder.output / shard.name).read_bytes()):
            found = example.decode(record)
            records[found.image_id] = found.image
    assert len(records) == 54 and builder.manifest.image_shape == (24, 20, 3)
    pixels = simplejpeg.decode_jpeg(records["000007.jpg"])
    assert pixels.shape == (24, 20, 3) and pixels[..., 0].min() > 240
