"""Decoded images per second: the trainer's input compared with other loaders.

    python -m benchmarks.input --peers_python=.venv-peers/bin/python --write

builds a dataset of synthetic faces, and writes the training split's JPEGs as loose
files and in the formats of other libraries: every case decodes the same images,
shuffled, into uint8 batches (image_dataset_from_directory: float32), in as many threads
or processes as there are cores, interleaved. The time to start does not count, and all
files are in the system's cache. The upper bounds are "decode only", libjpeg-turbo on
files that are in memory already, into memory that is used again, and "memory copy" of
as many bytes as the decoded images have.

`--workers=1,2` measures all of it for each number of cores, the programs held to them.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import harness, programs
from schemas.manifest import FILE_NAME, Manifest
from support import command
from support.errors import usage_error
from support.pool import cores


@dataclasses.dataclass(frozen=True)
class InputBenchmarkConfig:
    """Images, batches and cores to measure with."""

    num_images: int = command.option(
        8000, "Synthetic faces; the training split is used."
    )
    image_size: str = command.option(
        "", "Resize the images to H,W pixels when they are built; empty: 218,178."
    )
    batch_size: int = command.option(32, "Images per batch.")
    workers: tuple[int, ...] = command.option(
        (0,), "Numbers of cores to use, one after another; 0 = all there are."
    )
    peers_python: str = command.option(
        "", "A Python that has benchmarks/requirements-peers.txt; empty = no peers."
    )
    rounds: int = command.option(5, "Measured rounds; one more warms up.")
    write: bool = command.option(False, "Write the result to benchmarks/results.")

    def __post_init__(self):
        few_images = self.num_images < 4 * self.batch_size
        if few_images or min(self.rounds, self.batch_size) < 1:
            raise usage_error(
                f"--rounds={self.rounds}, --batch_size={self.batch_size} or "
                f"--num_images={self.num_images} is too few.",
                "Use 1 or more, and four images for each of a batch.",
            )
        known = {0, cores()}
        if hasattr(os, "sched_setaffinity"):
            known |= set(range(cores()))
        if not self.workers or not set(self.workers) <= known:
            raise usage_error(
                f"--workers={','.join(map(str, self.workers))} is not possible: "
                f"this program may use {cores()} cores.",
                "Leave --workers out to use them all.",
            )


def main(argv: list[str]) -> None:
    config = command.parse_config(InputBenchmarkConfig, argv)
    with tempfile.TemporaryDirectory() as work:
        dataset = make_data(config.num_images, Path(work), config.image_size)
        measurements = []
        for workers in dict.fromkeys(number or cores() for number in config.workers):
            measurements += measure(config, workers, dataset)
        manifest = Manifest.from_json((dataset / FILE_NAME).read_text())
    settings = {
        "num_images": manifest.num_examples("train"),
        "batch_size": config.batch_size,
        "workers": cores(),
        "image_shape": list(manifest.image_shape),
    }
    name = "-".join(["input", *filter(None, [config.image_size.replace(",", "x")])])
    result = harness.document(name, "images", measurements, settings)
    harness.report(result, config.write)


def make_data(count: int, work: Path, image_size: str = "") -> Path:
    """Builds a dataset of synthetic faces; returns its directory."""
    sample, dataset = work / "sample", work / "tfrecords"
    python = [sys.executable, "-m"]
    words = [f"--output_dir={sample}", f"--num_examples={count}"]
    programs.run([*python, "beam_pipelines.synthesize", *words])
    words = [
        "--runner=DirectRunner",
        "--balance=none",
        f"--celeba_dir={sample}",
        f"--output_dir={dataset}",
        f"--image_size={image_size}",
    ]
    programs.run([*python, "beam_pipelines.build", *words])
    return dataset


def measure(
    config: InputBenchmarkConfig, workers: int, dataset: Path
) -> list[harness.Measurement]:
    """Measures every case with some of the cores.

    Returns:
      the measurements; their names end in the number of cores unless it is all of them.
    """
    measured = with_cores(workers, _measure_here, config, dataset)
    suffix = "" if workers == cores() else f", workers={workers}"
    return [
        dataclasses.replace(case, name=case.name + suffix, facts={"workers": workers})
        for case in measured
    ]


def with_cores(number: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a fresh process that may use so many cores and no others."""
    initializer, initargs = None, ()
    if number < cores():
        # Before the function imports TensorFlow, which counts the cores only once.
        initializer = os.sched_setaffinity
        initargs = (0, sorted(os.sched_getaffinity(0))[:number])
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        1, spawn, initializer, initargs
    ) as pool:
        return pool.submit(function, *arguments).result()


def _measure_here(
    config: InputBenchmarkConfig, dataset: Path
) -> list[harness.Measurement]:
    from benchmarks import input_cases
    from trainer.loop import wakeup

    loose = dataset.parent / "loose"
    if not loose.exists():
        input_cases.write_loose(dataset, loose)
    with wakeup.Watch():
        cases = list(input_cases.own_cases(dataset, loose, config.batch_size))
        cases += input_cases.peers(loose, config.batch_size, config.peers_python)
        return harness.measure(cases, config.rounds)


if __name__ == "__main__":
    command.run(main)
