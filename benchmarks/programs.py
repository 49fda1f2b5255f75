"""Cases of `benchmarks.harness` that need a process of their own.

TensorFlow with oneDNN and without, PyTorch: they exclude each other in one process, or
are installed in other environments. So each case is a program that prepares its work,
answers with its facts, and does one turn for every line that it is sent. An answer is a
line of JSON.

Both ends are here, of the standard library alone: the peers' environments run it too.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Timed, Work, paced
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
      work: some steps; its units are images.
      facts: of the case, name to number.
      device_bytes: the most memory that was taken on a GPU, 0 without one.
      matmul: products of large matrices, None for none; its units are floating-point
        operations. It allocates when first called, so not in the step's memory.
      about: versions and device.
    """

    work: Work
    facts: dict[str, float]
    device_bytes: Callable[[], int]
    matmul: Work | None = None
    about: dict[str, str] = dataclasses.field(default_factory=dict)


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
    """A program that waits for its turns; close it, or use it as a context.

    Attributes:
      facts: numbers that it measured when it was ready, by name.
      about: its versions and device.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]):
        self._words = words
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {"PYTHONPATH": os.pathsep.join(paths), **environment}
        with contextlib.ExitStack() as stack, _runnable(words[0]):
            self._errors = stack.enter_context(tempfile.TemporaryFile(mode="w+"))
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=os.environ | environment,
                cwd=ROOT,
                text=True,
            )
            stack.pop_all()  # it started: `close` closes the file
        try:
            answer = self._answer()
            self.facts: dict[str, float] = answer["facts"]
            self.about: dict[str, str] = answer["about"]
        except BaseException:
            self.close()
            raise

    def run(self, what: str = "step") -> Timed:
        """Does one turn of the step or of "matmul", as a case of `harness.measure`.

        Raises:
          ProgramFailed: it ended.
        """
        with contextlib.suppress(BrokenPipeError):  # the missing answer says why
            print(what, file=self._process.stdin, flush=True)
        return Timed(**self._answer())

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


@contextlib.contextmanager
def _runnable(python: str) -> Iterator[None]:
    """Raises UserError (exit 2) where a Python cannot be started."""
    try:
        yield
    except OSError as error:
        raise usage_error(
            f"{python} cannot be run: {error.strerror}.",
            "Name the python of an environment by --peers_python.",
        ) from error


def serve(prepare: Callable[[dict[str, Any]], Step]) -> None:
    """The other end: prepares the task of the command line, does a turn per line.

    The facts that it adds: the seconds to compile; what the work, compiling included,
    added to the process's largest resident size; the most that was taken on the GPU.
    """
    # Libraries print to standard output too: the answers go to a copy of it.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: Mapping[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    task = json.loads(sys.argv[1])
    before = _resident("VmRSS")
    step = prepare(task)
    first, second = step.work(1).seconds, step.work(1).seconds
    facts = step.facts | {"compile, s": max(first - second, 0.0)}
    facts["memory, MiB"] = max(_resident("VmHWM") - before, 0.0)
    if taken := step.device_bytes():
        facts["GPU memory, MiB"] = taken / _MEBIBYTE
    answer({"facts": facts, "about": step.about})
    turns = {"step": paced("", step.work, task["round_seconds"], second)}
    if step.matmul:
        turns["matmul"] = paced("", step.matmul, _MATMUL_SECONDS, _MATMUL_SECONDS)
    for line in sys.stdin:
        answer(dataclasses.asdict(turns[line.strip()].run()))


def can_import(name: str, python: str, modules: str) -> bool:
    """Tells whether a Python has the modules of a case; prints that it is skipped.

    Raises:
      UserError: it cannot be run (exit 2).
    """
    with _runnable(python):
        done = subprocess.run([python, "-c", f"import {modules}"], capture_output=True)
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
