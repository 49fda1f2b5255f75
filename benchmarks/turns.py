"""Programs that wait for their turn: each keeps what it measures in its own process.

TensorFlow with oneDNN and without, PyTorch: they exclude each other in one process, or
are installed in other environments. So each case is a program that gets ready, answers
with its facts, and does one round for every line that it is sent. A line is a JSON
object either way.

Both ends are here, of the standard library alone: the peers' environments run it too.
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from support import memory

ROOT = Path(__file__).parent.parent
_PATIENCE = 10  # seconds for a program to end by itself
_MATMUL_SECONDS = 0.25
_MEBIBYTE = 2**20
_LONGEST_MESSAGE = 300


@dataclasses.dataclass(frozen=True)
class Work:
    """A step that is ready to be timed.

    Attributes:
      images: per step.
      step: starts one step.
      wait: returns when all started steps have ended.
      multiply: multiplies large square matrices and waits for the product; it makes
        them when it is first called, so that they are not in the step's memory.
      multiply_flops: floating-point operations of one such call.
      facts: of the case, name to number.
      device_bytes: the most memory that was taken on a GPU, 0 without one.
    """

    images: int
    step: Callable[[], Any]
    wait: Callable[[], Any]
    multiply: Callable[[], Any]
    multiply_flops: float
    facts: dict[str, float]
    device_bytes: Callable[[], int]


@dataclasses.dataclass(frozen=True)
class Round:
    """What a program measured in one turn.

    Attributes:
      images: trained on.
      seconds: that they took.
      matmul: floating-point operations per second of the matrix product.
      memory: what the work, compiling included, added to the process's largest resident
        size, MiB; 0 where unknown. Until the first matrix product.
      device_memory: the most that was taken on the GPU, MiB, until then.
    """

    images: int
    seconds: float
    matmul: float
    memory: float
    device_memory: float


class ProgramFailed(Exception):
    """A program ended instead of answering.

    Attributes:
      out_of_memory: whether it said so, or the kernel killed it, as it does then.
    """

    def __init__(self, written: str, status: int):
        lines = [line.strip() for line in written.split("\n") if line.strip()]
        telling = [line for line in lines if memory.ran_out(line)]
        self.out_of_memory = bool(telling) or status == -signal.SIGKILL
        silent = ["killed" if self.out_of_memory else "no message"]
        last = (telling or lines or silent)[-1][:_LONGEST_MESSAGE]
        what = "out of memory: " if self.out_of_memory else ""
        super().__init__(f"{what}{last} (exit status {status})")


class Program:
    """A program that waits for its turns; close it, or use it as a context.

    Attributes:
      facts: what it said of itself when it was ready.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]):
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

    def round(self) -> Round:
        """Lets it do one round.

        Raises:
          ProgramFailed: it ended.
        """
        try:
            print("{}", file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # the answer that does not come says why
        return Round(**self._answer())

    @property
    def ended(self) -> bool:
        """Whether it ran into its end by itself."""
        return self._process.poll() is not None

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
        raise ProgramFailed(self._errors.read(), code)


def describe(words: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """What a program without a task says: its device and the precision that fits it."""
    with Program(words, environment) as program:
        return program.facts


def serve(
    prepare: Callable[[dict[str, Any]], Work], device: Callable[[], dict[str, Any]]
) -> None:
    """The other end: does the task of the command line, one round per line.

    Args:
      prepare: builds the work of a task.
      device: says what the work would run on; answered when there is no task.
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
    _be_the_first_to_go()
    baseline = _resident("VmRSS")
    work = prepare(task)
    first, second = _seconds(work, 1), _seconds(work, 1)
    answer(work.facts | {"compile, s": max(first - second, 0.0)})
    for done in _rounds(work, task["round_seconds"], second, baseline):
        answer(dataclasses.asdict(done))


def _rounds(
    work: Work, round_seconds: float, seconds: float, baseline: float
) -> Iterator[Round]:
    """One round for each line of standard input.

    Args:
      work: what to time.
      round_seconds: length of a round.
      seconds: that a step took; later rounds know better.
      baseline: resident MiB before the work was there.
    """
    memory = device_memory = None
    for _ in sys.stdin:
        steps = max(1, math.ceil(round_seconds / seconds))
        seconds = _seconds(work, steps) / steps
        if memory is None:  # what follows is not the step's
            memory = max(_resident("VmHWM") - baseline, 0.0)
            device_memory = work.device_bytes() / _MEBIBYTE
            work.multiply()  # it may have to be compiled
        yield Round(
            images=steps * work.images,
            seconds=seconds * steps,
            matmul=_matmul(work),
            memory=memory,
            device_memory=device_memory,
        )


def made_once(make: Callable[[], Callable[[], Any]]) -> Callable[[], Any]:
    """A function that makes what it calls when it is first called."""
    made = functools.cache(make)
    return lambda: made()()


def _be_the_first_to_go() -> None:
    """Asks the kernel to end this process, not another, when memory runs out."""
    with contextlib.suppress(OSError):  # no such file, or not allowed
        Path("/proc/self/oom_score_adj").write_text("1000")


def _seconds(work: Work, steps: int) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        work.step()
    work.wait()
    return time.perf_counter() - started


def _matmul(work: Work) -> float:
    """The best rate of several products: a peak, not a mean."""
    best, began = math.inf, time.perf_counter()
    while best == math.inf or time.perf_counter() - began < _MATMUL_SECONDS:
        started = time.perf_counter()
        work.multiply()
        best = min(best, time.perf_counter() - started)
    return work.multiply_flops / best


def _resident(field: str) -> float:
    """MiB, 0 without /proc: VmRSS is now, VmHWM the most so far.

    getrusage would count the parent's before exec.
    """
    path = Path("/proc/self/status")
    if not path.exists():
        return 0.0
    lines = path.read_text().splitlines()
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) / 1024 if found else 0.0


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, in which our packages are found."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **changes}
