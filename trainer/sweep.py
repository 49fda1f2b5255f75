"""Trains several architectures and seeds, one run after another, and compares them.

`python -m trainer.sweep --flagfile=FILE --models=all --seeds=0,1,2`: every run is a
process of its own (`python -m trainer.main`) in its own directory. The same command
resumes: finished runs are skipped, a stopped one continues. The comparison is written
into the sweep's directory at the end.
"""

import dataclasses
import itertools
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType

from absl import flags

from support import command
from support.errors import ExitCode, UserError, did_you_mean, usage_error
from support.files import FolderLock, atomic_write, output_errors
from support.images import require_local
from trainer.config import MODELS, NO_WEIGHTS, REGIMES, TrainConfig
from trainer.runs import RUN
from trainer.runs.folder import check_same_options, own_folder, with_absolute_inputs
from trainer.runs.provenance import dataset_manifest
from trainer.runs.record import is_finished, read_run, require

FLAGS = "sweep.flags"
ALL = "all"
#: Options of a run that the sweep sets itself, and what to give instead.
_OWN = {"model": "--models", "seed": "--seeds", "run_dir": "--sweep_dir"}


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Flags of `python -m trainer.sweep`, next to those of `trainer.main`."""

    models: tuple[str, ...] = command.option(
        (ALL,), f"Architectures, or all: {', '.join(MODELS)}."
    )
    seeds: tuple[int, ...] = command.option((0, 1, 2), "Seeds, a run of each model.")
    regimes: tuple[str, ...] = command.option(
        (), "Regimes, a run of each; empty: --regime. scratch ignores --weights."
    )
    sweep_dir: str = command.option(
        "runs/sweep", "Directory of the runs' directories and of the comparison."
    )

    def __post_init__(self):
        for name in ("models", "seeds", "sweep_dir"):
            if not getattr(self, name):
                raise usage_error(f"--{name} is empty.", f"Omit --{name}, or fill it.")
        _check_list("models", self.models, (ALL, *MODELS))
        _check_list("regimes", self.regimes, REGIMES)
        _check_list("seeds", self.seeds, self.seeds)
        require_local(self.sweep_dir, "sweep_dir")

    @property
    def folder(self) -> Path:
        return Path(self.sweep_dir)


def plan(sweep: SweepConfig, base: TrainConfig) -> list[TrainConfig]:
    """The runs in their order: all models with the first seed, then with the next.

    Args:
      sweep: what is to be run.
      base: every other option.

    Raises:
      UserError: a model or regime does not go with the other options (exit 2).
    """
    models = MODELS if ALL in sweep.models else sweep.models
    regimes = sweep.regimes or (base.regime,)
    runs = []
    for seed, model, regime in itertools.product(sweep.seeds, models, regimes):
        between = f"-{regime}" if sweep.regimes else ""
        folder = sweep.folder / f"{model}{between}-seed{seed}"
        changes = {"model": model, "seed": seed, "regime": regime}
        if sweep.regimes and regime == "scratch":
            changes["weights"] = NO_WEIGHTS
        runs.append(dataclasses.replace(base, **changes, run_dir=str(folder)))
    return runs


def train_command(config: TrainConfig) -> list[str]:
    """The command line of one run."""
    options = command.flags_text(config).splitlines()
    return [sys.executable, "-m", "trainer.main", *options]


def sweep_text(sweep: SweepConfig, base: TrainConfig) -> str:
    """The flagfile that resumes a sweep, without what it sets itself."""
    lines = command.flags_text(base).splitlines(keepends=True)
    own = tuple(f"--{name}=" for name in _OWN)
    return command.flags_text(sweep) + "".join(
        line for line in lines if not line.startswith(own)
    )


def check_options(sweep: SweepConfig, base: TrainConfig) -> None:
    """Refuses to resume a sweep with other options, except more models, seeds, regimes.

    Raises:
      UserError: the directory contains a sweep with other options (exit 2).
    """
    path = sweep.folder / FLAGS
    if path.is_file():
        free = {*_OWN, *(field.name for field in dataclasses.fields(SweepConfig))}
        check_same_options(path, sweep_text(sweep, base), free, "sweep_dir")


def check_same_data(runs: Sequence[TrainConfig]) -> None:
    """Refuses to resume a sweep with another dataset than that of its finished runs.

    Otherwise the others train for hours and then cannot be compared with them.

    Raises:
      UserError: a finished run was trained on other data (exit 2) or does not say on
        which (3); the dataset is missing (3) or its manifest damaged (5).
    """
    finished = _finished(runs)
    if len(finished) in (0, len(runs)):
        return  # nothing to agree with, or nothing to train
    data_dir = runs[0].data_dir
    digest = dataset_manifest(Path(data_dir)).digest
    for folder in finished:
        record = read_run(folder)
        require(folder, record, ("manifest_digest",))
        if record["manifest_digest"] != digest:
            raise usage_error(
                f"{folder} was trained on other data than {data_dir} (manifests "
                f"{record['manifest_digest'][:12]}, {digest[:12]}).",
                "Choose another --sweep_dir, or the dataset of that run as --data_dir.",
            )


def run_process(words: Sequence[str]) -> tuple[int, int | None]:
    """Runs a command, and passes Ctrl-C and SIGTERM on to it.

    It is in a process group of its own, so that Ctrl-C on a terminal reaches it once,
    from here, and not twice, which would stop it without a checkpoint.

    Returns:
      Its exit code, negative for a signal, and the first signal that arrived here.
    """
    arrived, started = [], []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)
        for process in started:
            process.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, process_group=0)
        started.append(process)
        for number in arrived[:1]:  # it came before there was a process
            process.send_signal(number)
        return process.wait(), next(iter(arrived), None)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_all(runs: Sequence[TrainConfig], resume: str) -> dict[str, int]:
    """Trains what is not finished; a failed run does not keep the others.

    Args:
      runs: of `plan`.
      resume: the command that continues the sweep.

    Returns:
      Run folder -> exit code of the runs that failed, in their order.

    Raises:
      UserError: stopped by Ctrl-C (exit 130) or SIGTERM (75).
    """
    failed = {}
    for number, config in enumerate(runs, start=1):
        if is_finished(Path(config.run_dir)):
            continue
        print(f"\nrun {number} of {len(runs)}: {config.run_dir}", flush=True)
        code, stopped_by = run_process(train_command(config))
        if stopped_by is not None:
            raise command.stopped(stopped_by, f"Resume with: {resume}")
        if code:
            failed[config.run_dir] = code
            print(f"{config.run_dir} failed with {_code_text(code)}.", flush=True)
    return failed


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(SweepConfig, values)
    command.define_flags(TrainConfig, values)
    _refuse_own_options(argv)
    command.refuse_words(command.parse(argv, values))
    sweep = command.from_flags(SweepConfig, values)
    folder = own_folder(argv, "sweep_dir", FLAGS, f"*/{RUN}") or sweep.sweep_dir
    sweep = dataclasses.replace(sweep, sweep_dir=str(Path(folder).absolute()))
    for name, instead in _OWN.items():
        if values[name].present:
            print(f"note: --{name} of the flagfile gives way to {instead}.")
            values[name].unparse()
    base = with_absolute_inputs(_base(values, sweep))
    runs = plan(sweep, base)
    with FolderLock(sweep.folder):
        check_options(sweep, base)
        # Before the flagfile is written, which would keep the wrong --data_dir.
        check_same_data(runs)
        with output_errors(sweep.folder):
            sweep.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(sweep.folder / FLAGS, sweep_text(sweep, base))
        _train_and_compare(sweep, runs)


def _train_and_compare(sweep: SweepConfig, runs: Sequence[TrainConfig]) -> None:
    path = shlex.quote(str(sweep.folder / FLAGS))
    resume = f"python -m trainer.sweep --flagfile={path}"
    done = len(_finished(runs))
    if done < len(runs):
        dataset_manifest(Path(runs[0].data_dir))  # without it every run would fail
    print(f"{len(runs)} runs in {sweep.folder}, {done} of them finished", flush=True)
    failed = run_all(runs, resume)
    finished = _finished(runs)
    if finished:
        # Imported late: scikit-learn and matplotlib take seconds, the first run starts
        # without them.
        from trainer.compare import compare_runs

        print()
        compare_runs(finished, sweep.folder)
    if failed:
        codes = [f"{folder} ({_code_text(code)})" for folder, code in failed.items()]
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed: {', '.join(codes)}.",
            f"Fix what they name, then resume with: {resume}",
            _exit_code(next(iter(failed.values()))),
        )


def _base(values: flags.FlagValues, sweep: SweepConfig) -> TrainConfig:
    """The options that all runs share; those of the sweep keep their defaults."""
    if sweep.regimes:
        # --weights are for the regimes that start from weights, see `plan`.
        trained = [regime for regime in sweep.regimes if regime != "scratch"]
        values["regime"].value = (*trained, "scratch")[0]
    return command.from_flags(TrainConfig, values)


def _finished(runs: Iterable[TrainConfig]) -> list[Path]:
    folders = [Path(run.run_dir) for run in runs]
    return [folder for folder in folders if is_finished(folder)]


def _refuse_own_options(argv: Iterable[str]) -> None:
    """Refuses --model, --seed and --run_dir on the command line.

    In a flagfile they give way: the recipes in configs/ name their model.
    """
    for word in argv:
        name = re.match(rf"--?({'|'.join(_OWN)})(=|$)", word)
        if name:
            instead = _OWN[name[1]]
            raise usage_error(
                f"--{name[1]} is for one run; a sweep has {instead}.",
                f"Use {instead}, or train one run with python -m trainer.main.",
            )


def _check_list(name: str, values: Sequence, choices: Sequence) -> None:
    for value in values:
        if value not in choices:
            raise usage_error(
                f"--{name}: there is no {value!r}.", did_you_mean(value, choices)
            )
        if values.count(value) > 1:
            raise usage_error(f"--{name} has {value} twice.", "Name it once.")


def _code_text(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    # The kernel's answer to too little memory is SIGKILL.
    return f"{name}, most likely out of memory" if name == "SIGKILL" else name


def _exit_code(code: int) -> ExitCode:
    """The sweep's exit code for a run's."""
    if code == -signal.SIGKILL:
        return ExitCode.OUT_OF_MEMORY
    return ExitCode(code) if code in list(ExitCode) else ExitCode.BUG


if __name__ == "__main__":
    command.run(main)
