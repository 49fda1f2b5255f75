"""Decoded images per second: the trainer's input compared with other loaders.

    python -m benchmarks.input --peers_python=.venv-peers/bin/python --write

builds a dataset of synthetic faces, and writes the training split's JPEGs as loose
files and in the formats of other libraries: every case decodes the same images,
shuffled, into uint8 batches (image_dataset_from_directory: float32), in as many threads
or processes as there are cores, interleaved. The time to start does not count, and all
files are in the system's cache. The upper bound is "decode only", libjpeg-turbo on
files that are in memory already, into memory that is used again.
"""

import dataclasses
import tempfile
from pathlib import Path

from benchmarks import harness, programs
from benchmarks.options import POSITIVE, Options
from support import command
from support.errors import usage_error
from support.pool import cores


@dataclasses.dataclass(frozen=True)
class InputBenchmarkConfig(Options):
    """Images and batches to measure with."""

    num_images: int = command.option(
        8000, "Synthetic faces; the training split is used."
    )
    image_size: str = command.option(
        "", "Resize the images to H,W pixels when they are built; empty: 218,178."
    )
    batch_size: int = command.option(32, "Images per batch.", POSITIVE)
    peers_python: str = command.option(
        "", "A Python that has benchmarks/requirements-peers.txt; empty = no peers."
    )

    def __post_init__(self):
        super().__post_init__()
        if self.num_images < 4 * self.batch_size:
            raise usage_error(
                f"--num_images={self.num_images} is too few.",
                "Use four images or more for each of a batch.",
            )


def main(argv: list[str]) -> None:
    config = command.parse_config(InputBenchmarkConfig, argv)
    from benchmarks import input_cases
    from trainer.loop import wakeup

    with tempfile.TemporaryDirectory() as work, wakeup.Watch():
        folder = make_data(config.num_images, Path(work), config.image_size)
        dataset, loose = input_cases.open_dataset(folder), folder.parent / "loose"
        input_cases.write_loose(folder, loose)
        cases = list(input_cases.own_cases(folder, loose, config.batch_size))
        cases += input_cases.peers(loose, config.batch_size, config.peers_python)
        measured = harness.measure(cases, config.rounds)
    settings = {
        "num_images": dataset.manifest.num_examples("train"),
        "batch_size": config.batch_size,
        "workers": cores(),
        "image_shape": list(dataset.manifest.image_shape),
    }
    name = "-".join(["input", *filter(None, [config.image_size.replace(",", "x")])])
    harness.report(name, "images", measured, settings, config.write)


def make_data(count: int, work: Path, image_size: str = "") -> Path:
    """Builds a dataset of synthetic faces; returns its directory."""
    sample, dataset = work / "sample", work / "tfrecords"
    programs.synthesize(sample, count)
    programs.run(programs.build(sample, dataset, f"--image_size={image_size}"))
    return dataset


if __name__ == "__main__":
    command.run(main)
