"""Memory, descriptors and threads of long runs, and of the whole of CelebA's size.

A build and a training work for `SECONDS` each: after a fifth of that time nothing may
grow any more. A made-up CelebA of `IMAGES` images is then built within
`BUILD_MEGABYTES` and trained and evaluated within `TRAIN_MEGABYTES`, counted over all
processes as proportional resident memory (PSS: a page that several share counts once),
which only Linux tells.
"""

import contextlib
import dataclasses
import glob
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil

from benchmarks import programs
from schemas import celeba
from support.errors import ExitCode
from tests.beam_pipelines.conftest import jpeg
from tests.faults.table import Row
from trainer.runs import HISTORY

ROOT = Path(__file__).parents[2]
SECONDS = 300
IMAGES = 202_599  # CelebA's
BUILD_MEGABYTES, TRAIN_MEGABYTES = 1000, 4000
#: Growth from the second fifth of the samples to the last that counts as none.
STEADY, SPARE = 1.03, 4  # memory, as a factor; descriptors and threads, their number
_FEWEST_SAMPLES = 20
_PATIENCE = 120  # seconds for a program to end
#: Many files are links to one image.
_ALL = ("--keep_duplicates",)
_TRAIN = ("tests/trainer/tiny_run.py", "never", "--model=tiny", "--input_size=32")


@dataclasses.dataclass(frozen=True)
class Sample:
    """A program with all processes below it, at one moment."""

    megabytes: float
    descriptors: int
    threads: int


def watch(
    words: Sequence[str], seconds: float = 0, begun: str = os.sep
) -> tuple[list[Sample], int, str]:
    """Runs a program of this checkout and samples its processes.

    Args:
      words: the command line.
      seconds: of work, or more until there are enough samples, then it is asked to
        stop; 0 waits for its end.
      begun: a pattern of files; the work begins when one of them is there, by default
        at once.

    Returns:
      The samples of its work, its exit code, and what it printed.
    """
    samples, end = [], None
    pause = min(1, seconds / 50) if seconds else 0.2
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(
            words, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                time.sleep(pause)
                if end is None and glob.glob(begun):
                    end = time.monotonic() + (seconds or math.inf)
                if end is None:
                    continue
                if time.monotonic() > end and len(samples) >= _FEWEST_SAMPLES:
                    break
                with contextlib.suppress(psutil.Error):  # one has just ended
                    samples.append(_sample(process))
            with contextlib.suppress(psutil.Error):
                process.terminate()
                process.wait(_PATIENCE)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        output.seek(0)
        return samples, process.wait(), output.read()


def _sample(process: psutil.Process) -> Sample:
    tree = (process, *process.children(recursive=True))
    return Sample(
        sum(one.memory_full_info().pss for one in tree) / 1e6,
        sum(one.num_fds() for one in tree),
        sum(one.num_threads() for one in tree),
    )


def growth(samples: Sequence[Sample]) -> list[str]:
    """The resources that grew after the warm-up, the first fifth of the samples.

    The median of the last fifth is compared with that of the second.
    """
    fifth = len(samples) // 5
    if len(samples) < _FEWEST_SAMPLES:
        return [f"it ended after {len(samples)} samples"]
    grown = []
    for name in ("megabytes", "descriptors", "threads"):
        values = [getattr(sample, name) for sample in samples]
        early = statistics.median(values[fifth : 2 * fifth])
        late = statistics.median(values[-fifth:])
        most = early * STEADY if name == "megabytes" else early + SPARE
        if late > most:
            grown.append(f"{name} grew from {early:.0f} to {late:.0f}")
    return grown


def make_celeba(folder: Path, count: int, jpegs: Sequence[bytes]) -> None:
    """A CelebA directory in the official format whose images are links to a few."""
    images = folder / celeba.IMAGE_FOLDER
    images.mkdir(parents=True)
    names = [f"{index:06d}.jpg" for index in range(1, count + 1)]
    for index, name in enumerate(names):
        if index < len(jpegs):
            (images / name).write_bytes(jpegs[index])
        else:
            os.link(images / names[index % len(jpegs)], images / name)
    values = np.random.default_rng(0).choice(["-1", " 1"], (count, 40))
    rows = {
        celeba.ATTRIBUTES_FILE: map(" ".join, values),
        celeba.IDENTITY_FILE: (str(1 + index // 20) for index in range(count)),
        celeba.PARTITION_FILE: (
            str(min(2, 3 * index // count)) for index in range(count)
        ),
    }
    for kind, texts in rows.items():
        body = [f"{name} {text}\n" for name, text in zip(names, texts, strict=True)]
        if kind == celeba.ATTRIBUTES_FILE:
            body[:0] = [f"{count}\n", " ".join(celeba.ATTRIBUTES) + " \n"]
        (folder / kind).write_text("".join(body))


def build_for(seconds: float, folder: Path) -> Row:
    """One build of images so large that its processes have work for the whole time."""
    make_celeba(folder / "celeba", 250 * round(seconds), _large_jpegs())
    words = programs.build(folder / "celeba", folder / "out", "--image_size=64", *_ALL)
    words += ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    shards = f"{glob.escape(str(folder))}/out.building-*/*.tfrecord-*"
    samples, code, text = watch(words, seconds, shards)
    allowed = (ExitCode.OK, ExitCode.STOPPED)
    return _row(f"a build works for {seconds:.0f} s", samples, code, allowed, text)


def train_for(seconds: float, folder: Path) -> Row:
    """A run of very many short epochs: validation, checkpoint and history in each."""
    make_celeba(folder / "celeba", 600, [jpeg(seed, 218, 178) for seed in range(60)])
    programs.run(programs.build(folder / "celeba", folder / "out", *_ALL))
    words = [sys.executable, *_TRAIN, f"--data_dir={folder / 'out'}"]
    words += [f"--run_dir={folder / 'run'}", "--epochs=1000000", "--patience=0"]
    words += ["--cache_mb=0"]
    history = glob.escape(str(folder / "run" / HISTORY))
    samples, code, text = watch(words, seconds, history)
    what = f"a training works for {seconds:.0f} s"
    return _row(what, samples, code, (ExitCode.STOPPED,), text)


def whole(count: int, folder: Path) -> Iterator[Row]:
    """CelebA's size: a build, then an epoch, the evaluation and the report."""
    programs.synthesize(folder / "faces", 100)
    faces = sorted((folder / "faces" / celeba.IMAGE_FOLDER).iterdir())
    make_celeba(folder / "celeba", count, [path.read_bytes() for path in faces])
    words = programs.build(folder / "celeba", folder / "out", *_ALL)
    samples, code, text = watch(words)
    what = f"{count:,} images are built"
    yield _row(what, samples, code, (ExitCode.OK,), text, BUILD_MEGABYTES)
    words = [sys.executable, *_TRAIN, f"--data_dir={folder / 'out'}", "--epochs=1"]
    samples, code, text = watch([*words, f"--run_dir={folder / 'run'}"])
    what = f"{count:,} images are trained on and evaluated"
    yield _row(what, samples, code, (ExitCode.OK,), text, TRAIN_MEGABYTES)


def _large_jpegs() -> list[bytes]:
    return [jpeg(seed, 2048, 2048) for seed in range(8)]


def _row(
    what: str,
    samples: Sequence[Sample],
    code: int,
    allowed: Sequence[int],
    text: str,
    most: int = 0,
) -> Row:
    """The row of a program: its growth, or for one with a bound its most memory."""
    peak = max((sample.megabytes for sample in samples), default=0)
    lost = [] if most else growth(samples)
    if most and peak > most:
        lost.append(f"{peak:,.0f} MB, more than {most:,}")
    if code not in allowed:
        lost.append(f"it ended with {code}: {text[-500:]}")
    bound = f"; at most {most:,} allowed" if most else "; no growth after the start"
    sees = f"{peak:,.0f} MB at most in all its processes{bound}"
    return Row(what, len(samples), lost, sees)


def rows(every: int) -> Iterator[Row]:
    """Long runs, then large ones; an EVERY of 10 takes a tenth of both."""
    if not hasattr(psutil.Process().memory_full_info(), "pss"):
        yield Row("long runs", 0, [], "not tried: only Linux tells PSS")
        return
    for part in (build_for, train_for):
        with tempfile.TemporaryDirectory() as folder:
            yield part(SECONDS / every, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        yield from whole(IMAGES // every, Path(folder))
