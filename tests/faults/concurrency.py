"""Programs at one place at the same moment: one clear loser, or both results whole.

The first program is stopped (SIGSTOP) when it has its lock, others are started that
want the same place, and it continues. Readers of a dataset run against a program that
builds two others in its place, again and again.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

from beam_pipelines import build, verify
from support import command
from support.errors import ExitCode, UserError
from support.files import FolderLock
from tests.beam_pipelines.conftest import make_celeba
from tests.faults.table import Row
from trainer.runs import HISTORY, PREDICTIONS, record

ROOT = Path(__file__).parents[2]
SECONDS = 40  # that readers and builds are at work
_PATIENCE = 1200  # for what a program does in seconds on a quiet machine
_started: list[subprocess.Popen] = []
_IN_USE = "is in use by process"
_REPLACED = "was replaced or removed while it was read"


class Failed(Exception):
    """A loss for a user."""


def start(*words: str | Path) -> subprocess.Popen:
    """Starts `python WORDS` of this checkout."""
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    _started.append(process)
    return process


def end(process: subprocess.Popen, *expected: int) -> str:
    """Waits for a program; what it printed.

    Raises:
      Failed: it ended with another exit code, or its error is not two lines.
    """
    text = process.communicate(timeout=_PATIENCE)[0]
    at = text.find("error: ")
    is_plain = at < 0 or len(text[at:].split("asleep for")[0].strip().split("\n")) == 2
    if process.returncode not in expected or not is_plain or "Traceback" in text:
        words = " ".join(process.args[1:4])
        raise Failed(f"{words} ended with {process.returncode}: {text[-400:]}")
    return text


def refuse(first: subprocess.Popen, locked: Path, seconds: Sequence[tuple]) -> int:
    """Holds a program where it has its lock; all the others must be refused.

    Args:
      first: the program, just started.
      locked: what it locks.
      seconds: the command lines of others.

    Returns:
      How many were refused.

    Raises:
      Failed: one was not.
    """
    try:
        wait_for(FolderLock(locked).path, first)
        first.send_signal(signal.SIGSTOP)
        for words in seconds:
            text = end(start(*words), ExitCode.OUTPUT)
            if _IN_USE not in text:
                raise Failed(f"{words}: {text[-400:]}")
    finally:
        first.send_signal(signal.SIGCONT)
    return len(seconds)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Waits until a program has made a file."""
    deadline = time.monotonic() + _PATIENCE
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"{path.name} never came: {process.communicate()[0][-400:]}")
        time.sleep(0.002)


def _build_words(folder: Path, output: str, *flags: str) -> tuple[str, ...]:
    places = f"--celeba_dir={folder / 'celeba'}", f"--output_dir={folder / output}"
    return ("-m", "beam_pipelines.build", *places, "--num_examples=60", *flags)


#: Of equal shape: names, shards and counts do not tell them apart.
def _seed(number: int) -> tuple[str, ...]:
    return (f"--seed={number}", "--split=random", "--num_shards=2")


def builds(folder: Path) -> int:
    """Into one folder, which a link leads to as well."""
    make_celeba(folder / "celeba", 120)
    (folder / "link").symlink_to(folder / "out")
    first = _build_words(folder, "out", *_seed(0))
    others = [first, _build_words(folder, "out", *_seed(1))]
    others += [(*words, "--overwrite") for words in others]
    others += [_build_words(folder, "link", *_seed(1))]
    process = start(*first)
    tried = refuse(process, folder / "out", others)
    end(process, ExitCode.OK)
    _check_dataset(folder, 0)
    for pair in (others[:2], others[2:4]):
        programs = [start(*words) for words in pair]
        texts = [end(one, ExitCode.OK, ExitCode.OUTPUT) for one in programs]
        losers = [one for one in programs if one.returncode]
        # One alone may lose, and only to the other one; --overwrite may not meet it.
        if pair[0] is not first and len(losers) == 2:
            raise Failed(f"both lost: {texts}")
        _check_dataset(folder)
        tried += 1
    return tried


def _check_dataset(folder: Path, seed: int | None = None) -> None:
    manifest = verify.verify(folder / "out")
    if seed is not None and manifest.config["seed"] != seed:
        raise Failed("the loser's dataset was published")
    names = sorted(os.listdir(folder))
    if names != ["celeba", "link", "out"]:
        raise Failed(f"something was left: {names}")


def _train_words(folder: Path, run: str, *flags: str) -> tuple[str, ...]:
    program = "tests/trainer/tiny_run.py", "never", "--model=tiny"
    places = f"--data_dir={folder / 'out'}", f"--run_dir={folder / run}"
    return (*program, *places, "--input_size=32", "--batch_size=8", *flags)


def trainings(folder: Path) -> int:
    """Into one run folder: the same command, another one, by a link, its flagfile."""
    _datasets(folder)
    (folder / "link").symlink_to(folder / "run")
    first = _train_words(folder, "run", "--epochs=3")
    process = start(*first)
    wait_for(folder / "run" / HISTORY, process)
    resume = f"--flagfile={folder / 'run' / 'flags.txt'}"
    others = [first, _train_words(folder, "link", "--epochs=3")]
    others += [_train_words(folder, "run", "--epochs=4"), (*first[:2], resume)]
    tried = refuse(process, folder / "run", others)
    end(process, ExitCode.OK)
    alone = start(*_train_words(folder, "alone", "--epochs=3"))
    end(alone, ExitCode.OK)
    results = [(folder / name / PREDICTIONS).read_text() for name in ("run", "alone")]
    if results[0] != results[1]:
        raise Failed("the run gave another model than undisturbed")
    return tried


def sweeps(folder: Path) -> int:
    """Into one directory; also a training of one of its runs."""
    _datasets(folder)
    options = "--models=googlenet", "--seeds=0", f"--sweep_dir={folder / 'sweep'}"
    options += f"--data_dir={folder / 'out'}", *_SHORT
    first = "-m", "trainer.sweep", *options
    process = start(*first)
    others = [first, (*first, "--learning_rate=0.1")]
    tried = refuse(process, folder / "sweep", others)
    run = folder / "sweep" / "googlenet-seed0"
    wait_for(FolderLock(run).path, process)
    words = "-m", "trainer.main", f"--run_dir={run}", f"--data_dir={folder / 'out'}"
    end(start(*words, *_SHORT), ExitCode.OUTPUT)
    end(process, ExitCode.OK)
    if not record.is_finished(run) or not (folder / "sweep/comparison.html").exists():
        raise Failed("the sweep is not complete")
    return tried + 1


_SHORT = "--epochs=1", "--input_size=32", "--batch_size=8", "--report_images=false"


def predictions(folder: Path) -> int:
    """Into one file, which is replaced as a whole: either may be the last."""
    _datasets(folder)
    data, run = f"--data_dir={folder / 'out'}", f"--run_dir={folder / 'run'}"
    words = "-m", "trainer.main", run, data, "--model=googlenet", *_SHORT
    end(start(*words), ExitCode.OK)
    images = folder / "celeba" / "img_align_celeba"
    words = "-m", "trainer.predict", run, f"--output={folder / 'p.csv'}", images
    twice = [start(*words) for _ in range(2)]
    for process in twice:
        end(process, ExitCode.OK)
    if len((folder / "p.csv").read_text().splitlines()) != 121:
        raise Failed("the predictions are not complete")
    if leftover := [path.name for path in folder.rglob(".*")]:
        raise Failed(f"something was left: {leftover}")
    return len(twice)


def dated_folders(folder: Path) -> int:
    """Runs without a --run_dir that start in the same second."""
    script = (
        "import os, pathlib, sys, time; from trainer.runs import folder;"
        "from trainer.config import TrainConfig; os.chdir(sys.argv[1]);"
        "pathlib.Path(f'ready-{os.getpid()}').touch()\n"
        "while not os.path.exists('go'): time.sleep(0.001)\n"
        "print(folder.place(TrainConfig(), ['main']).run_dir)"
    )
    programs = [start("-c", script, folder) for _ in range(6)]
    for process in programs:
        wait_for(folder / f"ready-{process.pid}", process)
    (folder / "go").touch()
    names = [end(process, ExitCode.OK).strip() for process in programs]
    if len(set(names)) < len(names):
        raise Failed(f"two runs have one folder: {names}")
    return len(names)


def _datasets(folder: Path) -> None:
    make_celeba(folder / "celeba", 120)
    end(start(*_build_words(folder, "out", *_seed(0))), ExitCode.OK)


def publish(folder: str, seconds: str) -> None:
    """Builds one dataset and another at one path, alternating; prints how often."""
    sys.modules["matplotlib"] = None  # charts would take most of the time
    deadline, count = time.monotonic() + float(seconds), 0
    while time.monotonic() < deadline:
        words = _build_words(Path(folder), "out", *_seed(count % 2), "--overwrite")
        with contextlib.redirect_stdout(sys.stderr):
            code = command.guard(build.main, [*words[1:]])
        if code:
            sys.exit(code)
        count += 1
    print(json.dumps({"builds": count}))


def read_by_verify(folder: str, seconds: str) -> None:
    """Verifies the dataset again and again; prints what came of it."""
    _read_for(seconds, lambda: verify.verify(Path(folder, "out")).config["seed"])


def read_by_trainer(folder: str, seconds: str) -> None:
    """Reads all splits as the trainer does, slowly; prints which dataset came."""
    from trainer.data import evaluation_dataset, open_dataset

    def contents(path: Path) -> list:
        data = open_dataset(path)
        found: list = [data.manifest.digest]
        for split in ("train", "validation", "test"):
            batches = evaluation_dataset(data, split, 4, as_supervised=False)
            for batch in data.iterate(split, batches):
                found.append(batch["images"].numpy().tobytes())
                time.sleep(random.random() / 20)
        return found

    known = [contents(Path(folder, f"dataset-{seed}")) for seed in range(2)]

    def read() -> int:
        found = contents(Path(folder, "out"))
        if found not in known:
            raise Failed("the data are of no single dataset")
        return known.index(found)

    _read_for(seconds, read)


def _read_for(seconds: str, read: Callable[[], int]) -> None:
    deadline, counts = time.monotonic() + float(seconds), [0, 0, 0]
    while time.monotonic() < deadline:
        try:
            counts[read()] += 1
        except UserError as error:
            if _REPLACED not in error.cause or error.exit_code != ExitCode.INTEGRITY:
                raise
            counts[2] += 1
    print(json.dumps(dict(zip(("old", "new", "replaced"), counts, strict=True))))


def readers(folder: Path, seconds: float) -> int:
    """Two readers and a training while other datasets are built in its place."""
    _datasets(folder)
    for seed in range(2):
        end(start(*_build_words(folder, f"dataset-{seed}", *_seed(seed))), ExitCode.OK)
    training = start(*_train_words(folder, "run", "--epochs=100000", "--cache_mb=0"))
    wait_for(folder / "run" / HISTORY, training)
    code = "import sys; from tests.faults import concurrency as this;"
    code += "getattr(this, sys.argv[1])(*sys.argv[2:])"
    parts = "publish", "read_by_verify", "read_by_trainer"
    programs = [start("-c", code, part, folder, seconds) for part in parts]
    texts = [end(process, ExitCode.OK) for process in programs]
    counts = [json.loads(text.splitlines()[-1]) for text in texts]
    tried = sum(sum(count.values()) for count in counts[1:])
    if counts[0]["builds"] < 2 or not tried:
        raise Failed(f"too few to mean something: {counts}")
    if _REPLACED not in end(training, ExitCode.INTEGRITY):
        raise Failed("the training does not say that its dataset was replaced")
    if record.is_finished(folder / "run"):
        raise Failed("the training finished on a mix")
    return tried + 1


_SEEN = (
    (builds, "two builds into one folder", f"exit 4: FOLDER {_IN_USE} N"),
    (trainings, "two trainings into one run", "exit 4; the first gives the same model"),
    (sweeps, "two sweeps into one directory", "exit 4; the first one is completed"),
    (predictions, "two predictions into one file", "the last one's, complete"),
    (dated_folders, "runs begun in the same second", "a folder for each"),
)


def rows(every: int) -> Iterator[Row]:
    """A row for each place; an EVERY of 10 reads for a tenth of the time."""
    for part, fault, user_sees in _SEEN:
        yield attempt(part, fault, user_sees)

    def read(folder: Path) -> int:
        return readers(folder, SECONDS / every)

    sees = f"the old or the new one whole, or exit 5: FOLDER {_REPLACED}"
    yield attempt(read, "a dataset is replaced while it is read", sees)


def attempt(part: Callable[[Path], int], fault: str, user_sees: str) -> Row:
    """Runs a part in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        try:
            return Row(fault, part(Path(os.path.realpath(name))), [], user_sees)
        except (Failed, UserError, subprocess.TimeoutExpired) as error:
            return Row(fault, 1, [str(error)], user_sees)
        finally:
            for process in _started:
                if process.poll() is None:
                    tree = psutil.Process(process.pid)
                    for one in (*tree.children(recursive=True), tree):
                        one.kill()
            _started.clear()
