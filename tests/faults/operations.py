"""Operations of the programs that change the disk, and a way to try faults on them.

Each is done in a child forked from this process, which has imported everything and
computed nothing: so a program starts at once, and TensorFlow's threads are a child's
own. A program's `main` is called as its command line calls it.
"""

import atexit
import contextlib
import dataclasses
import filecmp
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import keras

from beam_pipelines import build
from support import command, figures, files
from support.errors import ExitCode
from tests.beam_pipelines.conftest import jpeg, make_celeba
from tests.trainer import tiny_run
from tests.trainer.conftest import write_dataset
from tests.trainer.evaluation.run_folder import edit
from trainer import (
    evaluate,
    export,
    main,
    model_card,
    models,
    predict,
    report,
    sweep,
)
from trainer.inference import export_formats
from trainer.loop import checkpoint
from trainer.runs import BEST, FLAGS, PREDICTIONS, RUN, provenance, record

#: From each such moment or case on, only what is done quickly is tried.
SAMPLE = 10

_HANGS = 600  # seconds, a guard only
_TIMINGS = r"images_per_second|input_wait|.*seconds"
_OLD = b"the old one"

#: What a reader of an operation's output finds: name -> content or its digest.
Result = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Operation:
    """Something that must happen wholly or not at all.

    Attributes:
      name: in words.
      prepare: puts the old result into an empty folder.
      work: does it, in a folder that was prepared; an exit code.
      result: what a reader of the folder finds; each entry is the old or the new one.
      again: the same command, where one that had just ended refuses to do it again.
      absent: whether a kill may leave neither, for the moment of the change.
      every: tries each nth moment only, because it takes seconds.
      user_sees: what the same command does afterwards.
    """

    name: str
    prepare: Callable[[Path], object]
    work: Callable[[Path], int | None]
    result: Callable[[Path], Result]
    again: Callable[[Path], int | None] | None = None
    absent: bool = False
    every: int = 1
    user_sees: str = "the old or the new result; the same command completes it"


@dataclasses.dataclass(frozen=True)
class Ended:
    """The end of a child: its exit code (negative: the signal), its error stream."""

    code: int
    errors: str


class Trial:
    """An operation with its old and its new result, and a place where it may fail.

    Attributes:
      place: a folder; `renew` puts the old result there.
      whole: a folder in which the operation was done without a fault.
    """

    def __init__(self, operation: Operation, folder: Path):
        self.operation = operation
        self.prepared, self.whole = folder / "prepared", folder / "whole"
        self.place = folder / "place"
        for path in (self.prepared, self.place):
            path.mkdir(parents=True)
        operation.prepare(self.prepared)
        self.old = operation.result(self.prepared)
        shutil.copytree(self.prepared, self.whole)
        ended = in_child(operation.work, self.whole)
        if ended.code:
            raise RuntimeError(f"{operation.name}, no fault: {ended}")
        self.new, self._names = operation.result(self.whole), names(self.whole)

    def renew(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)  # it may be a mount point
        shutil.copytree(self.prepared, self.place, dirs_exist_ok=True)

    def damage(self, absent: bool = False) -> Iterator[str]:
        """Yields what is neither as before nor as it should become (nor `absent`)."""
        now = self.operation.result(self.place)
        for name in {**now, **self.old, **self.new}:
            expected = self.old.get(name), self.new.get(name)
            if now.get(name) not in expected and not (absent and name not in now):
                yield f"{name} is {now.get(name)}, neither of {expected}"

    def completed(self) -> Iterator[str]:
        """Does the same again; yields what then is not as without the fault."""
        operation = self.operation
        ended = in_child(operation.again or operation.work, self.place)
        now, left = operation.result(self.place), names(self.place)
        if ended.code or now != self.new:
            yield f"the same again ends with {ended}: {now}, not {self.new}"
        if left != self._names:
            yield f"other files than without: {sorted(left ^ self._names)}"

    def new_files(self) -> Iterator[Path]:
        """Yields the files that the operation writes, where it had no fault."""
        for path in self.whole.rglob("*"):
            before = self.prepared / path.relative_to(self.whole)
            if path.is_file() and not (
                before.is_file() and filecmp.cmp(path, before, shallow=False)
            ):
                yield path


def in_child(
    work: Callable[[Path], int | None],
    folder: Path,
    before: Callable[[], object] = lambda: None,
) -> Ended:
    """Does the work in a forked process."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        code = ExitCode.BUG
        try:
            signal.alarm(_HANGS)
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os.dup2(sink, 2)
            before()
            code = int(work(folder) or 0)
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)
    os.close(sink)
    with open(source, "rb") as stream:
        errors = stream.read().decode(errors="backslashreplace")
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), errors)


def names(folder: Path) -> set[str]:
    """The paths in a folder, without the times in names of TensorBoard's files."""
    paths = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return {re.sub(r"tfevents\..*", "tfevents", path) for path in paths}


def program(main: Callable[[list[str]], int | None], *words: object) -> int:
    """Runs a program as its command line does; charts are placeholders."""
    figures.png, figures.svg = lambda *_: b"a chart", lambda *_: "<svg></svg>"
    try:
        command.run(main, ["program", *map(str, words)])
    except SystemExit as end:
        return int(end.code)


def _digests(folder: Path, *patterns: str) -> Result:
    """Digests of files, but for the folder's path in them."""
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    contents = {
        str(path.relative_to(folder)): path.read_bytes().replace(bytes(folder), b"")
        for path in paths
    }
    return {name: hashlib.sha256(text).hexdigest() for name, text in contents.items()}


def _make_old(folder: Path, *patterns: str) -> None:
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        path.write_bytes(_OLD)


def _build(folder: Path, *flags: str) -> int:
    sys.modules["matplotlib"] = None  # charts would take most of the time
    source, output = folder / "celeba", folder / "out"
    words = [f"--celeba_dir={source}", f"--output_dir={output}", "--num_shards=2"]
    return program(build.main, *words, *flags)


def _build_new(folder: Path, *flags: str) -> int:
    return _build(folder, "--num_examples=20", *flags)


def _build_new_again(folder: Path) -> int:
    code = _build_new(folder)
    if code == ExitCode.OUTPUT:  # all was there
        return _build_new(folder, "--overwrite")
    return code


def _prepare_dataset(folder: Path) -> None:
    make_celeba(folder / "celeba", 60)
    in_child(lambda folder: _build(folder, "--num_examples=30"), folder)


def _dataset(folder: Path) -> Result:
    """A digest of the manifest and the shards; nothing where there is no dataset."""
    output = folder / "out"
    if not output.is_dir():
        return {}
    if not (output / "manifest.json").is_file():
        return {"dataset": f"no manifest among {os.listdir(output)}"}
    digest = hashlib.sha256((output / "manifest.json").read_bytes())
    for path in sorted(output.iterdir()):
        if ".tfrecord-" in path.name and path.suffix != ".json":
            digest.update(path.read_bytes())
    return {"dataset": digest.hexdigest()}


class _Variable:
    """The parts of a variable that a checkpoint needs."""

    def __init__(self, value: float):
        self.value = np.full(4, value)
        self.shape = self.value.shape

    def numpy(self) -> np.ndarray:
        return self.value

    def assign(self, value: np.ndarray) -> None:
        self.value = value


def _save(folder: Path, epoch: int) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.set_weights([np.full((1, 1), epoch), np.zeros(1)])
    sha256 = models.save(model, checkpoint.best_path(folder, epoch))
    progress = checkpoint.Progress(epoch=epoch, best_epoch=epoch, best_sha256=sha256)
    checkpoint.save(folder, 10 * epoch, {"weight": _Variable(epoch)}, progress)


def _prepare_checkpoints(folder: Path) -> None:
    for epoch in (1, 2):
        in_child(lambda folder, epoch=epoch: _save(folder, epoch), folder)


def _save_next(folder: Path) -> int:
    def restore_and_save(_argv: list[str]) -> None:
        checkpoint.restore(folder, {"weight": _Variable(0)})
        with files.output_errors(folder):  # as the loop does
            _save(folder, 3)

    return program(restore_and_save)


def _checkpoint(folder: Path) -> Result:
    """The state that a run would resume from, and its best model."""
    variable = _Variable(0)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)  # `restore` may mend what a kill left
    progress, skipped = checkpoint.restore(copy, {"weight": variable})
    best = _weights(copy / BEST)
    shutil.rmtree(copy)
    return {"state": (progress.epoch, float(variable.value[0]), best, *skipped)}


def _weights(path: Path) -> str:
    """A digest of a .keras file's weights: the file also contains a date."""
    with zipfile.ZipFile(path) as file:
        return hashlib.sha256(file.read("model.weights.h5")).hexdigest()


class Runs:
    """A dataset, a run on it that was killed after an epoch, and the same finished."""

    def __init__(self, folder: Path):
        models.ARCHITECTURES["tiny"] = models.Architecture("Tiny", tiny_run.backbone)
        self.data, self.images = folder / "data", folder / "images"
        self.killed, self.finished = folder / "killed" / "run", folder / "ended" / "run"
        for path in (self.images, self.killed.parent):
            path.mkdir(parents=True)
        in_child(lambda _: write_dataset(self.data) and None, folder)
        for number in range(3):
            (self.images / f"{number}.jpg").write_bytes(jpeg(number, 40, 32))
        moment = "renamed:step-000000006"
        in_child(self.train, self.killed.parent, lambda: tiny_run.arm(moment))
        shutil.copytree(self.killed.parent, self.finished.parent)
        ended = in_child(self.train, self.finished.parent)
        if ended.code:
            raise RuntimeError(f"the run did not finish: {ended}")

    def train(self, folder: Path, name: str = "run") -> int:
        words = f"--model=tiny --data_dir={self.data} --run_dir={folder / name} "
        words += "--input_size=32 --batch_size=8 --epochs=2 --precision=float32 "
        return program(main.main, *words.split(), "--noreport_images")

    def copy_killed(self, folder: Path) -> None:
        shutil.copytree(self.killed, folder / "run")

    def copy_finished(self, folder: Path) -> None:
        shutil.copytree(self.finished, folder / "run")

    def evaluate(self, folder: Path, *flags: str) -> int:
        words = f"--run_dir={folder / 'run'} --data_dir={self.data} --noreport_images"
        return program(evaluate.main, *words.split(), *flags)

    def prepare_evaluation(self, folder: Path) -> None:
        self.copy_finished(folder)
        in_child(lambda folder: self.evaluate(folder, "--abstain=0.2"), folder)
        old = folder / "run/evaluation-test"
        # As of other images: what is read next to each other must be of one evaluation.
        table = pd.read_csv(old / PREDICTIONS)
        table.assign(label=1 - table["label"]).to_csv(old / PREDICTIONS, index=False)

    def predict(self, folder: Path, *flags: str) -> int:
        words = f"--run_dir={self.finished} {self.images}"
        return program(predict.main, *words.split(), *flags)

    def annotate(self, folder: Path) -> int:
        return self.predict(folder, f"--annotate={folder / 'out'}")

    def annotate_again(self, folder: Path) -> int:
        code = self.annotate(folder)
        return ExitCode.OK if code == ExitCode.OUTPUT and _annotated(folder) else code

    def sweep(self, folder: Path) -> int:
        words = f"--sweep_dir={folder / 'sweep'} --data_dir={self.data} --models=vgg16 "
        return program(sweep.main, *words.split(), "--seeds=0,1", "--input_size=32")

    def prepare_sweep(self, folder: Path) -> None:
        """Two finished runs, as if they were of a model that a sweep knows."""
        for seed in (0, 1):
            run = folder / "sweep" / f"vgg16-seed{seed}"
            shutil.copytree(self.finished, run)
            edit(run / RUN, model="vgg16", seed=seed)
            options = (run / FLAGS).read_text()
            options = options.replace("--model=tiny", "--model=vgg16")
            (run / FLAGS).write_text(options.replace("--seed=0", f"--seed={seed}"))
        in_child(self.sweep, folder)
        _make_old(folder / "sweep", "*.csv", "*.html", "*.png")
        (folder / "sweep" / sweep.FLAGS).unlink()  # it names this folder

    def export(self, folder: Path, form: str, write: Callable | None = None) -> int:
        """Exports; the result is not run in a process of its own, which takes long."""
        if write:
            written = export_formats.FORMATS[form]
            export.FORMATS[form] = dataclasses.replace(written, write=write)
        export.run_alone = lambda *_: np.zeros(1)
        export.check = lambda *_: 0.0
        words = f"--run_dir={folder / 'run'} --format={form} --data_dir={self.data}"
        return program(export.main, *words.split(), "--overwrite")

    def prepare_export(self, folder: Path, form: str) -> None:
        self.copy_finished(folder)
        path = folder / "run" / export_formats.FORMATS[form].default_name
        in_child(lambda folder: self.export(folder, form, _write_short), folder)
        part = path / "variables/data" if path.is_dir() else path
        part.write_bytes(_OLD)
        edit(provenance.path_of(path), sha256=provenance.sha256_of(path))


def _write_short(_model: keras.Model, path: Path) -> None:
    if not path.suffix:
        (path / "variables").mkdir(parents=True)
        (path / export_formats.SAVED_MODEL_FILE).write_text("a graph")
        path = path / "variables/data"
    path.write_text("a model")


def _export(folder: Path, form: str) -> Result:
    """An export; its record must be of it, or absent."""
    path = folder / "run" / export_formats.FORMATS[form].default_name
    recorded, digest = provenance.path_of(path), provenance.sha256_of(path)
    if recorded.exists() and json.loads(recorded.read_text())["sha256"] != digest:
        return {"export": "next to the record of another"}
    return {"export": digest}


def _exported(folder: Path, form: str) -> Result:
    """The presence of an export with its record; nothing where there is none."""
    path = folder / "run" / export_formats.FORMATS[form].default_name
    if not path.exists():
        return {}
    recorded = provenance.path_of(path).exists() and _export(folder, form)["export"]
    return {"export": recorded == provenance.sha256_of(path)}


def _run(folder: Path) -> Result:
    """The results of a finished run; of another, that it is unfinished."""
    run_dir = folder / "run"
    if not record.is_finished(run_dir):
        return {"run": "unfinished"}
    history = pd.read_csv(run_dir / "history.csv")
    steps = history.drop(columns=history.filter(regex=_TIMINGS)).to_csv()
    left = _digests(run_dir, PREDICTIONS, "metrics.json", "*.png")
    return {"run": (_weights(run_dir / BEST), steps, left)}


def _evaluation(folder: Path) -> Result:
    """The evaluation that a reader believes: the files that go with metrics.json."""
    results = folder / "run/evaluation-test"
    if not (results / "metrics.json").is_file():
        return {}
    metrics = json.loads((results / "metrics.json").read_text())
    names = PREDICTIONS, "subgroups.json", "subgroups.csv"
    return {"evaluation": (metrics["abstention"], _digests(results, *names))}


def _annotated(folder: Path) -> Result:
    names = "index.csv", "0.jpg", "1.jpg", "2.jpg"
    found = _digests(folder / "out", *names)
    return {"images": found} if found else {}


_REPORT = ("report.html", "*.png")
_CARD = "MODEL_CARD.md"
_COMPARISON = ("*.csv", "*.html", "*.png", sweep.FLAGS)


def of_files_and_builds() -> Iterator[Operation]:
    """Yields what needs no run."""
    yield Operation(
        "a file is replaced",
        lambda folder: files.atomic_write(folder / "file", "old"),
        lambda folder: program(lambda _: files.atomic_write(folder / "file", "new")),
        lambda folder: {"file": (folder / "file").read_text()},
    )
    yield Operation(
        "checkpoint and best model", _prepare_checkpoints, _save_next, _checkpoint
    )
    yield Operation(
        "build into a new folder",
        lambda folder: make_celeba(folder / "celeba", 60),
        _build_new,
        _dataset,
        _build_new_again,
    )
    yield Operation(
        "build with --overwrite",
        _prepare_dataset,
        lambda folder: _build_new(folder, "--overwrite"),
        _dataset,
    )


def of_runs(runs: Runs) -> Iterator[Operation]:
    """Yields what a run and its users do."""
    yield Operation(
        "run resumed to its end", runs.copy_killed, runs.train, _run, every=50
    )

    def prepare(*names: str) -> Callable[[Path], None]:
        return lambda folder: (
            runs.copy_finished(folder),
            _make_old(folder / "run", *names),
        )

    yield Operation(
        "report drawn again",
        prepare(*_REPORT),
        lambda folder: program(report.main, f"--run_dir={folder / 'run'}"),
        lambda folder: _digests(folder / "run", *_REPORT),
    )
    yield Operation(
        "model card",
        prepare(_CARD),
        lambda folder: program(model_card.main, f"--run_dir={folder / 'run'}"),
        lambda folder: _digests(folder / "run", _CARD),
    )
    yield Operation(
        "evaluation repeated",
        runs.prepare_evaluation,
        runs.evaluate,
        _evaluation,
        absent=True,
        every=10,
        user_sees="the old or the new evaluation or, for a moment, none; the same "
        "command completes it",
    )
    yield Operation(
        "table of a sweep",
        runs.prepare_sweep,
        runs.sweep,
        lambda folder: _digests(folder / "sweep", *_COMPARISON),
        every=3,
    )
    yield Operation(
        "predictions.csv of photos",
        lambda folder: (folder / "p.csv").write_text(",".join(predict.COLUMNS) + "\n"),
        lambda folder: runs.predict(folder, f"--output={folder / 'p.csv'}"),
        lambda folder: _digests(folder, "p.csv"),
    )
    yield Operation(
        "photos annotated",
        lambda folder: None,
        runs.annotate,
        _annotated,
        runs.annotate_again,
    )


def of_short_exports(runs: Runs) -> Iterator[Operation]:
    """Yields the two ways to publish an export, without what takes long in them."""
    for form in ("keras", "savedmodel"):
        yield Operation(
            f"export ({form}) with --overwrite",
            functools.partial(runs.prepare_export, form=form),
            functools.partial(runs.export, form=form, write=_write_short),
            functools.partial(_export, form=form),
            user_sees="the old or the new export, for a moment without its record; "
            "the same command completes it",
        )


def of_exports(runs: Runs) -> Iterator[Operation]:
    """Yields every format, except that it is not run in a process of its own."""
    for form in export_formats.FORMATS:
        yield Operation(
            f"export ({form})",
            runs.copy_finished,
            functools.partial(runs.export, form=form),
            functools.partial(_exported, form=form),
            every=2,
        )


@functools.cache
def runs() -> Runs:
    """The runs that all parts use; they go with this process."""
    with contextlib.ExitStack() as stack:
        made = Runs(stack.enter_context(folder()))
        atexit.register(stack.pop_all().close)
    return made


def trials(
    every: int, folder: Path, runs: Runs, exports: Callable[[Runs], Iterator[Operation]]
) -> Iterator[Trial]:
    """A trial of each operation; a sample has none of those that take seconds."""
    operations = (of_files_and_builds(), of_runs(runs), exports(runs))
    for number, operation in enumerate(itertools.chain(*operations)):
        if every < SAMPLE or operation.every == 1:
            yield Trial(operation, folder / str(number))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: this is not about power cuts."""
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where, prefix="faults-") as path:
        yield Path(path)
