"""Decoded images per second: the trainer's input beside what one would otherwise use.

    python -m benchmarks.input --peers_python=.venv-peers/bin/python --write

draws faces, builds them, and writes the training split's JPEGs beside as loose files
and in the formats of other libraries: every case decodes the same images, shuffled,
into uint8 batches (image_dataset_from_directory: float32), in as many threads or
processes as there are cores, in turns. The time to start is left out, and everything
lies in the system's cache. The limits are "decode only", libjpeg-turbo on files that
are in memory already, into memory that is used again, and "memory copy" of as many
bytes as the decoded images have.

`--workers=1,2` measures all of it for each number of cores, the programs held to them.
"""

import concurrent.futures
import contextlib
import dataclasses
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from beam_pipelines import build, synthesize
from benchmarks import harness
from schemas.manifest import FILE_NAME, Manifest
from support import command
from support.errors import usage_error
from support.pool import cores


@dataclasses.dataclass(frozen=True)
class InputBenchmarkConfig:
    """What to measure."""

    num_images: int = command.option(8000, "Drawn faces; the training split is used.")
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
        if min(self.rounds, self.batch_size) < 1 or (
            self.num_images < 4 * self.batch_size
        ):
            raise usage_error(
                f"--rounds={self.rounds}, --batch_size={self.batch_size} or "
                f"--num_images={self.num_images} is too few.",
                "Use 1 or more, and four images for each of a batch.",
            )
        for number in self.workers or (-1,):
            held = 0 < number < cores()
            if not 0 <= number <= cores() or (
                held and not hasattr(os, "sched_setaffinity")
            ):
                raise usage_error(
                    f"--workers={','.join(map(str, self.workers))} is not possible: "
                    f"this program may use {cores()} cores.",
                    "Leave --workers out to use them all.",
                )


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(InputBenchmarkConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(InputBenchmarkConfig, values)
    with tempfile.TemporaryDirectory() as work:
        folder = make_data(config.num_images, Path(work), config.image_size)
        measurements = []
        for workers in dict.fromkeys(number or cores() for number in config.workers):
            measurements += measure(config, workers, folder)
        manifest = Manifest.from_json((folder / FILE_NAME).read_text())
    settings = {
        "num_images": manifest.num_examples("train"),
        "batch_size": config.batch_size,
        "workers": cores(),
        "image_shape": list(manifest.image_shape),
    }
    name = "-".join(["input", *filter(None, [config.image_size.replace(",", "x")])])
    result = harness.document(name, "images", measurements, settings)
    print(harness.table(result))
    if config.write:
        print(harness.write(result))


def make_data(count: int, work: Path, image_size: str = "") -> Path:
    """Draws faces and builds them; returns the dataset's folder."""
    sample, folder = work / "sample", work / "tfrecords"
    # A program of its own, with its own workers.
    words = [f"--output_dir={sample}", f"--num_examples={count}"]
    program = [sys.executable, "-m", synthesize.__name__, *words]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    words = [
        "--runner=DirectRunner",
        "--balance=none",
        f"--celeba_dir={sample}",
        f"--output_dir={folder}",
        f"--image_size={image_size}",
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        build.main(["build", *words])
    return folder


def measure(
    config: InputBenchmarkConfig, workers: int, folder: Path
) -> list[harness.Measurement]:
    """Measures every case with some of the cores.

    Returns:
      the measurements; their names say the number of cores unless it is all of them.
    """
    measured = with_cores(workers, _measure_here, config, folder)
    suffix = "" if workers == cores() else f", workers={workers}"
    return [
        dataclasses.replace(case, name=case.name + suffix, facts={"workers": workers})
        for case in measured
    ]


def with_cores(number: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a fresh process that may use so many cores and no others."""
    hold, told = None, ()
    if number < cores():
        # Before the function imports TensorFlow, which counts the cores only once.
        hold = os.sched_setaffinity
        told = (0, sorted(os.sched_getaffinity(0))[:number])
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn, hold, told) as pool:
        return pool.submit(function, *arguments).result()


def _measure_here(
    config: InputBenchmarkConfig, folder: Path
) -> list[harness.Measurement]:
    from benchmarks import input_cases, input_peers
    from trainer.loop import wakeup

    loose = folder.parent / "loose"
    if not loose.exists():
        input_cases.write_loose(folder, loose)
    with wakeup.Watch():
        cases = list(input_cases.own_cases(folder, loose, config.batch_size))
        cases += input_peers.peer_cases(loose, config.batch_size, config.peers_python)
        return harness.measure(cases, config.rounds)


if __name__ == "__main__":
    command.run(main)
