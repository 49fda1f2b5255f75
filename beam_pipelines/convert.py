"""Converts Parquet files to CelebA's own layout: images in a zip, annotations as text.

    python -m beam_pipelines.convert --celeba_dir=COPY --output_dir=data/celeba

One machine can build from Parquet files as they are; converted once, they are a
directory that every runner reads, and that no build has to copy images from.
"""

import dataclasses
import os
import re
import shutil
from pathlib import Path

from beam_pipelines.config import BuildConfig
from beam_pipelines.datasets import DATASETS
from beam_pipelines.sources import load as sources
from beam_pipelines.sources import parquet
from beam_pipelines.sources.annotations import attribute_bits
from beam_pipelines.sources.parquet import ParquetSource
from beam_pipelines.sources.rows import Rows
from schemas.dataset import DataSet
from support import command, files
from support.command import option
from support.errors import input_error, output_error
from support.images import ENCODING, require_local
from support.progress import Progress


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """Options of this program; see `--help`."""

    celeba_dir: str = option("data/celeba-parquet", "Directory of the Parquet files.")
    output_dir: str = option("data/celeba", "Directory to make; empty or not there.")
    dataset: str = option("celeba", f"Data set in it: {', '.join(DATASETS)}.")

    def __post_init__(self):
        require_local(self.celeba_dir, "celeba_dir")
        require_local(self.output_dir, "output_dir")


def main(argv: list[str]) -> None:
    convert(command.parse_config(ConvertConfig, argv))


def convert(config: ConvertConfig) -> None:
    """Makes the directory, complete or not at all.

    Raises:
      UserError: exit 3, the Parquet files cannot be read; exit 4, the directory is not
        empty, or the disk is full.
    """
    if parquet.find(config.celeba_dir) is None:
        raise input_error(
            f"{config.celeba_dir} contains no Parquet files.",
            "Give --celeba_dir the directory that does.",
        )
    build_config = BuildConfig(
        celeba_dir=config.celeba_dir, dataset=config.dataset, split="official"
    )
    found = sources.load(build_config)
    print(*found.notes, sep="\n", flush=True)
    if not isinstance(found.images, ParquetSource):
        raise input_error(
            f"{found.images} is no Parquet file: the build reads it as it is.",
            "Give --celeba_dir the directory of the Parquet files.",
        )
    folder = Path(os.path.abspath(config.output_dir))
    with files.FolderLock(folder), files.output_errors(folder.parent):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise output_error(
                f"{folder} is there already.", "Give --output_dir a new directory."
            )
        # The lock is ours: what is there was left by a killed run.
        building = folder.with_name(f".{folder.name}.celeba-converting")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            _write(found.images, found.rows, building, build_config.data_set)
            os.rename(building, folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    print(f"{len(found.rows):,} images in {config.output_dir}")


def _write(images: ParquetSource, rows: Rows, folder: Path, data_set: DataSet) -> None:
    names = [name.decode() for name in rows.names.tolist()]
    if odd := next((name for name in names if re.search(r'[\s,;"]', name)), ""):
        raise input_error(
            f"The image {odd!r} cannot be named in a list whose words blanks separate.",
            "Build from the Parquet files as they are.",
        )
    files.check_free_space(folder, images.expected_bytes(rows.names))
    with (
        Progress(len(rows), "copying") as line,
        files.atomic_writer(folder / data_set.image_archive) as archive,
    ):
        encoded = images.copy(rows.names, archive, line.update)
    if encoded:
        print(f"{len(encoded):,} PNG images encoded as {ENCODING}")
    signs = [
        (2 * attribute_bits(rows.attributes, index).astype(int) - 1).tolist()
        for index in range(len(data_set.attributes))
    ]
    header = f"{len(names)}\n{' '.join(data_set.attributes)}\n"
    lines = (
        f"{name} {' '.join(map(str, row))}\n"
        for name, *row in zip(names, *signs, strict=True)
    )
    files.atomic_write(folder / data_set.attributes_file, header + "".join(lines))
    columns = {
        data_set.partition_file: rows.official,
        data_set.identity_file: rows.identities,
    }
    for file, values in columns.items():
        if file and (values >= 0).all():
            lines = (
                f"{name} {value}\n"
                for name, value in zip(names, values.tolist(), strict=True)
            )
            files.atomic_write(folder / file, "".join(lines))


if __name__ == "__main__":
    command.run(main)
