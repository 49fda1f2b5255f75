"""A run's folder: where it is, and whether the run in it may resume."""

import contextlib
import dataclasses
import datetime
import itertools
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from support.command import flags_text, split_flagfiles
from support.documents import read_text
from support.errors import ExitCode, UserError, usage_error
from support.files import atomic_write, output_errors
from trainer.config import IMAGENET, NO_WEIGHTS, NOT_COMPARED, TrainConfig
from trainer.runs import FLAGS, RUN
from trainer.runs.record import checked, read_run, write_run

#: Options that `auto` and 0 leave to the machine.
EFFECTIVE = ("precision", "xla", "replicas")


def place(config: TrainConfig, argv: Sequence[str]) -> TrainConfig:
    """Chooses the run folder and makes all paths absolute.

    That is the one of --run_dir on the command line; else the flagfile's own, if it is
    a run's: a run that was moved is trained where it is, not where its flags.txt says
    that it was; else the one that a flagfile names, or a dated one.

    Args:
      config: the options.
      argv: the command line that they are from.

    Raises:
      UserError: the dated folder cannot be made (exit 4).
    """
    run_dir = own_folder(argv, "run_dir", FLAGS, RUN) or config.run_dir
    run_dir = os.path.abspath(run_dir or _new_folder(config.model))
    return dataclasses.replace(with_absolute_inputs(config), run_dir=run_dir)


def with_absolute_inputs(config: TrainConfig) -> TrainConfig:
    """The options with absolute paths of what is read: any folder can resume with."""
    data_dir, weights = os.path.abspath(config.data_dir), _absolute(config.weights)
    return dataclasses.replace(config, data_dir=data_dir, weights=weights)


def own_folder(argv: Sequence[str], flag: str, name: str, mark: str) -> str:
    """The folder of a flagfile that a run or a sweep wrote for itself; "" without one.

    Args:
      argv: the command line, program first.
      flag: names the folder; on the command line itself it wins.
      name: of such a flagfile.
      mark: a pattern that only the files of such a folder match.
    """
    files, words = split_flagfiles(argv[1:])
    if any(re.match(rf"--?{flag}(=|$)", word) for word in words):
        return ""
    for file in map(Path, (file.partition("=")[2] for file in reversed(files))):
        if file.name == name and any(file.parent.glob(mark)):
            return str(file.parent)
    return ""


def _new_folder(model: str) -> Path:
    """Makes a dated folder; where there is one of this second, another."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        path = Path("runs", f"{now}-{model}{f'-{number}' if number > 1 else ''}")
        with output_errors(path.parent), contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            return path


def _absolute(weights: str) -> str:
    return weights if weights in (NO_WEIGHTS, IMAGENET) else os.path.abspath(weights)


def read_options(text: str) -> dict[str, str]:
    """The lines of a `flags.txt` as option -> value."""
    lines = [line.removeprefix("--").partition("=") for line in text.splitlines()]
    return {name: value for name, _, value in lines if name}


def all_options(text: str) -> dict[str, str]:
    """The same with the default of every option of `TrainConfig` that it leaves out.

    So an older run equals a newer one with the options of later versions unused.
    """
    options = read_options(flags_text(TrainConfig())) | read_options(text)
    return options | {"weights": _absolute(options["weights"])}


def check_same_options(
    flags_file: Path, text: str, free: Collection[str], flag: str
) -> None:
    """Compares options with those that a run or a sweep was started with.

    Args:
      flags_file: where those are; its folder is the run's or sweep's.
      text: the options now, as `flags_text` writes them.
      free: options that may differ.
      flag: the option that names the folder.

    Raises:
      UserError: others differ (exit 2), or the file is damaged (3).
    """
    folder = flags_file.parent
    before = all_options(checked(folder, flags_file.name, read_text))
    now = all_options(text)
    changed = [
        f"--{name} was {before.get(name)}, is {now.get(name)}"
        for name in sorted((before.keys() | now.keys()) - {*free, *NOT_COMPARED})
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise usage_error(
            f"{folder} was started with other options: {'; '.join(changed)}.",
            f"Choose another --{flag}, or give the options of {flags_file}.",
        )


def check_options(run_dir: Path, config: TrainConfig) -> None:
    """Refuses to resume a run, or to call it finished, with other options.

    Raises:
      UserError: the folder is a run's with other options (exit 2), it holds other
        files, or it is no folder (exit 4).
    """
    flags_file, problem = run_dir / FLAGS, ""
    if run_dir.exists() and not run_dir.is_dir():
        problem = "is not a folder"
    elif not run_dir.exists() or _is_new(run_dir):
        return
    elif not flags_file.is_file():
        problem = "is not empty and holds no run"
    if problem:
        raise UserError(
            f"{run_dir} {problem}.", "Choose another --run_dir.", ExitCode.OUTPUT
        )
    # What the effective ones became is compared, see `start`.
    free = EFFECTIVE if (run_dir / RUN).is_file() else ()
    check_same_options(flags_file, flags_text(config), free, "run_dir")


def start(run_dir: Path, config: TrainConfig, run: dict[str, Any]) -> None:
    """Writes flags.txt and run.json; a resumed run keeps its starting date.

    Raises:
      UserError: the resumed run was started on other data, or computed in another
        way: another precision, XLA or number of replicas (exit 2); the disk is full or
        not writable (exit 4).
    """
    with output_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        for unfinished in run_dir.glob(".*.tmp"):  # what a kill left
            if unfinished.is_file():
                unfinished.unlink()
        if (run_dir / RUN).is_file():
            before = read_run(run_dir)
            _check_same(run_dir, before, run)
            run = run | {"started": before.get("started")}
        atomic_write(run_dir / FLAGS, flags_text(config))
        write_run(run_dir, run)


def _check_same(run_dir: Path, before: dict[str, Any], run: dict[str, Any]) -> None:
    remedies = {
        "manifest_digest": "name the dataset of that run.",
        "precision": f"use --precision={before.get('precision')}.",
        "xla": f"use --xla={'on' if before.get('xla') else 'off'}.",
        "replicas": f"use --replicas={before.get('replicas')}.",
    }
    for key, remedy in remedies.items():
        if before.get(key) != run[key]:
            what = "other data (manifest_digest" if "digest" in key else f"({key}"
            raise usage_error(
                f"{run_dir} was started on {what} {str(before.get(key))[:12]}, now "
                f"{str(run[key])[:12]}).",
                f"Choose another --run_dir, or {remedy}",
            )


def _is_new(run_dir: Path) -> bool:
    """Whether a folder is empty but for what a start that was cut off left."""
    names = {path.name for path in run_dir.iterdir()}
    return not {name for name in names if name != FLAGS and not name.startswith(".")}
