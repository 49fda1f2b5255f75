"""Cases of `benchmarks.harness` that need a process of their own.

TensorFlow with oneDNN and without, PyTorch: they exclude each other in one process, or
are installed in other environments. So each case is a program that prepares its work,
answers with its facts, and does one round for every line that it is sent. A line is a
JSON object either way.

Both ends are here, of the standard library alone: the peers' environments run it too.
"""

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Timed, paced
from support import memory
from support.errors import ExitCode, UserError, usage_error

_PATIENCE = 10  # seconds for a program to end by itself
_WATCH_SECONDS = 0.2
_MATMUL_SECONDS = 0.25
_MEBIBYTE = 2**20
_LONGEST_MESSAGE = 300


@dataclasses.dataclass(frozen=True)
class Step:
    """A step that is ready to be timed.

    Attributes:
      images: per step.
      start: starts one step.
      wait: returns when all started steps have ended.
      facts: of the case, name to number.
      device_bytes: the most memory that was taken on a GPU, 0 without one.
      multiply: multiplies large matrices and waits; makes them when first called, so
        that they are not in the step's memory.
      multiply_flops: floating-point operations of one such call, 0 for no products.
    """

    images: int
    start: Callable[[], Any]
    wait: Callable[[], Any]
    facts: dict[str, float]
    device_bytes: Callable[[], int]
    multiply: Callable[[], Any] = lambda: None
    multiply_flops: float = 0.0

    def run(self, steps: int) -> Timed:
        """Does some steps; the units are images."""
        started = time.perf_counter()
        for _ in range(steps):
            self.start()
        self.wait()
        return Timed(steps * self.images, time.perf_counter() - started)

    def peak(self) -> float:
        """FLOP/s of the fastest of several matrix products, 0 without them."""
        best, began = math.inf, time.perf_counter()
        while self.multiply_flops and time.perf_counter() - began < _MATMUL_SECONDS:
            started = time.perf_counter()
            self.multiply()
            best = min(best, time.perf_counter() - started)
        return self.multiply_flops / best


@dataclasses.dataclass(frozen=True)
class Round(Timed):
    """Images of one round, the seconds that they took, and what else was measured.

    Attributes:
      matmul: FLOP/s of the matrix product, 0 for none.
      memory: what the work, compiling included, added to the process's largest resident
        size until the first matrix product, MiB; 0 where unknown.
      device_memory: the most that was taken on the GPU until then, MiB.
    """

    matmul: float
    memory: float
    device_memory: float


class ProgramFailed(UserError):
    """A program ended instead of answering (exit 7 for want of memory, else 2)."""

    def __init__(self, command: str, written: str, status: int):
        lines = [line.strip() for line in written.split("\n") if line.strip()]
        telling = [line for line in lines if memory.ran_out(line)]
        what, remedy, code = "", f"`{command}` shows its output.", ExitCode.USAGE
        # The kernel kills without a word.
        if telling or status == -signal.SIGKILL:
            what, code = "out of memory: ", ExitCode.OUT_OF_MEMORY
            remedy = "Try smaller sizes or batches, or end what else takes memory."
        last = (telling or lines or ["no message"])[-1][:_LONGEST_MESSAGE]
        cause = f"The program ended: {what}{last} (exit status {status})."
        super().__init__(cause, remedy, code)


class Program:
    """A program that waits for its rounds; close it, or use it as a context.

    Attributes:
      facts: its own description, sent when it was ready.
      rounds: what it measured so far.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]):
        self.rounds: list[Round] = []
        self._words = words
        self._errors = tempfile.TemporaryFile(mode="w+")
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(environment),
            cwd=ROOT,
            text=True,
        )
        try:
            self.facts: dict[str, Any] = self._answer()
        except BaseException:
            self.close()
            raise

    def run(self) -> Round:
        """Does one round, as a case of `harness.measure`.

        Raises:
          ProgramFailed: it ended.
        """
        with contextlib.suppress(BrokenPipeError):  # the missing answer says why
            print("{}", file=self._process.stdin, flush=True)
        self.rounds.append(Round(**self._answer()))
        return self.rounds[-1]

    def close(self) -> None:
        try:
            self._process.communicate(timeout=_PATIENCE)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.communicate()
        self._errors.close()

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout:
            if line.startswith("{"):  # not what a library prints when imported
                return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        command = " ".join(self._words[:3])
        raise ProgramFailed(command, self._errors.read(), code)


def describe(words: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """The answer of a program without a task, its device; raises ProgramFailed."""
    with Program(words, environment) as program:
        return program.facts


def serve(
    prepare: Callable[[dict[str, Any]], Step], device: Callable[[], dict[str, Any]]
) -> None:
    """The other end: does the task of the command line, one round per line.

    Args:
      prepare: builds the step of a task.
      device: describes what it would run on; the answer when there is no task.
    """
    # Libraries print to standard output too: the answers go to a copy of it.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: Mapping[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    if len(sys.argv) < 2:
        answer(device())
        return
    task = json.loads(sys.argv[1])
    baseline = _resident("VmRSS")
    step = prepare(task)
    first, second = step.run(1).seconds, step.run(1).seconds
    answer(step.facts | {"compile, s": max(first - second, 0.0)})
    case = paced("", step.run, task["round_seconds"], second)
    host = device_memory = None
    for _ in sys.stdin:
        done = case.run()
        if host is None:  # what follows is not the step's
            host = max(_resident("VmHWM") - baseline, 0.0)
            device_memory = step.device_bytes() / _MEBIBYTE
            step.multiply()  # it may have to be compiled
        measured = Round(done.units, done.seconds, step.peak(), host, device_memory)
        answer(dataclasses.asdict(measured))


def can_import(name: str, python: str, modules: str) -> bool:
    """Tells whether a Python has the modules of a case; prints that it is skipped.

    Raises:
      UserError: it cannot be run (exit 2).
    """
    try:
        done = subprocess.run([python, "-c", f"import {modules}"], capture_output=True)
    except OSError as error:
        raise usage_error(
            f"--peers_python={python} cannot be run: {error.strerror}.",
            "Name the python of an environment.",
        ) from error
    if done.returncode:
        print(f"skipped: {name}, {python} cannot import {modules}")
    return not done.returncode


def run(words: Sequence[str]) -> str:
    """Runs a program to its end and returns its standard output.

    Raises:
      CalledProcessError: it failed; what it wrote was printed.
    """
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr)
        done.check_returncode()
    return done.stdout


def synthesize(folder: Path, count: int) -> None:
    """Draws faces into a CelebA directory."""
    words = [f"--output_dir={folder}", f"--num_examples={count}"]
    run([sys.executable, "-m", "beam_pipelines.synthesize", *words])


def build(celeba_dir: Path, output_dir: Path, *words: str) -> list[str]:
    """The command that builds a dataset of all images."""
    folders = [f"--celeba_dir={celeba_dir}", f"--output_dir={output_dir}"]
    options = ["--runner=DirectRunner", "--balance=none", *folders, *words]
    return [sys.executable, "-m", "beam_pipelines.build", *options]


def run_watched(words: Sequence[str]) -> dict[str, float]:
    """Runs a program silently and watches it and all processes below it.

    `getrusage` counts only processes that their parent waited for, and workers that
    are forked from a server are not.

    Returns:
      "largest process, MB": resident, the highest that was seen of any process;
      "all processes, MB": resident, the highest that was seen of their sum;
      "processor seconds": of all processes together.

    Raises:
      CalledProcessError: it failed.
    """
    import psutil

    process = psutil.Popen(words, stdout=subprocess.DEVNULL)
    largest, most, seconds = 0, 0, {}
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):  # one has just ended
            resident = []
            for one in (process, *process.children(recursive=True)):
                times = one.cpu_times()
                seconds[one.pid] = times.user + times.system
                resident.append(one.memory_info().rss)
            largest, most = max(largest, *resident), max(most, sum(resident))
        time.sleep(_WATCH_SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(words))
    return {
        "largest process, MB": round(largest / 1e6, 1),
        "all processes, MB": round(most / 1e6, 1),
        "processor seconds": round(sum(seconds.values()), 1),
    }


def _resident(field: str) -> float:
    """MiB, 0 without /proc: VmRSS is now, VmHWM the most so far.

    getrusage would count the parent's before exec.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, in which our packages can be imported."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **changes}
