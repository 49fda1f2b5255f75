"""A run's folder: where it is, and whether the run in it may resume."""

import dataclasses
import datetime
from collections.abc import Collection
from pathlib import Path
from typing import Any

from support.command import flags_text
from support.documents import read_text
from support.errors import ExitCode, UserError, usage_error
from support.files import atomic_write, output_errors
from trainer.config import NOT_COMPARED, TrainConfig
from trainer.runs import FLAGS, RUN
from trainer.runs.record import checked, read_run, write_run

#: Options that `auto` and 0 leave to the machine.
EFFECTIVE = ("precision", "xla", "replicas")


def choose(config: TrainConfig) -> Path:
    """The run folder: the one asked for, or a dated one under runs/."""
    if config.run_dir:
        return Path(config.run_dir)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{now}-{config.model}"


def read_options(text: str) -> dict[str, str]:
    """The lines of a `flags.txt` as option -> value."""
    lines = [line.removeprefix("--").partition("=") for line in text.splitlines()]
    return {name: value for name, _, value in lines if name}


def all_options(text: str) -> dict[str, str]:
    """The same with the default of every option of `TrainConfig` that it leaves out.

    So an older run equals a newer one with the options of later versions unused.
    """
    fields = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    return read_options(flags_text(TrainConfig(**fields))) | read_options(text)


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
