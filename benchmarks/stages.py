"""Images per second of each stage of the main job, on drawn faces, on this machine.

python -m benchmarks.stages --write
"""

import contextlib
import dataclasses
import io
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import flags

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow
from beam_pipelines import build
from benchmarks import harness
from support import command
from support.errors import usage_error
from trainer import input_pipeline, runtime, steps, wakeup, warp
from trainer import job as jobs
from trainer.config import TrainConfig
from trainer.input_pipeline import Augmentation

_STEPS, _EPOCHS = 4, 3
_AUGMENTATION = Augmentation(20, (0.1, 0.1), True)


@dataclasses.dataclass(frozen=True)
class StagesConfig:
    """What to measure."""

    num_examples: int = command.option(2000, "Drawn faces to work on.")
    model: str = command.option("googlenet", "Architecture of the train step.")
    input_size: int = command.option(96, "Side of the model's input, pixels.")
    batch_size: int = command.option(32, "Examples per batch.")
    rounds: int = command.option(5, "Measured rounds; one more warms up.")
    write: bool = command.option(False, "Write the result to benchmarks/results.")

    def __post_init__(self):
        if self.rounds < 1 or self.num_examples < 4 * self.batch_size:
            raise usage_error(
                f"--rounds={self.rounds} or --num_examples={self.num_examples} is too "
                "few.",
                f"Use 1 round and {4 * self.batch_size} examples or more.",
            )


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(StagesConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(StagesConfig, values)
    with tempfile.TemporaryDirectory() as folder, wakeup.Watch():
        cases = list(_cases(config, Path(folder)))
        measurements = harness.measure(cases, config.rounds)
    settings = dataclasses.asdict(config)
    del settings["write"]
    name = f"stages-{config.model}-{config.input_size}"
    result = harness.document(name, "images", measurements, settings)
    print(harness.table(result))
    if config.write:
        print(harness.write(result))


def _cases(config: StagesConfig, folder: Path) -> Iterator[harness.Case]:
    """The stages, in the order in which an image meets them."""
    yield harness.Case("draw faces", _synthesizer(config, folder))
    yield harness.Case("build, with its report", _builder(config, folder))
    run = TrainConfig(
        model=config.model,
        data_dir=str(folder / "tfrecords"),
        input_size=config.input_size,
        batch_size=config.batch_size,
        replicas=1,
    )
    effective = runtime.prepare(run)
    dataset = input_pipeline.open_dataset(run.data_dir)
    yield harness.Case("read, decode, batch", _reader(config, dataset))
    job = jobs.build_job(run, effective, dataset)
    batches = itertools.cycle(itertools.islice(_batches(config, dataset), _STEPS))
    warped = warp.compiled(config.input_size)

    def repeat(function: Callable) -> Callable[[], int]:
        def do() -> int:
            for batch in itertools.islice(batches, _STEPS):
                last = function(batch)
            last.numpy()  # waits for the device
            return _STEPS * config.batch_size

        return do

    yield harness.Case(
        "warp", repeat(lambda batch: warped(batch["images"], batch["parameters"]))
    )

    def step(batch: dict) -> Any:
        job.train_step(batch)
        return job.train_step.sums

    yield harness.Case(f"train step, {config.model}", repeat(step))
    evaluate = steps.EvaluationStep(job.model, effective.strategy)
    yield harness.Case(
        f"evaluation, {config.model}", repeat(lambda batch: evaluate(batch["images"]))
    )


def _synthesizer(config: StagesConfig, folder: Path) -> Callable[[], int]:
    numbers = itertools.count()

    def do() -> int:
        output = folder / f"sample-{next(numbers)}"
        # A program of its own: its workers would import TensorFlow from this one.
        words = [f"--output_dir={output}", f"--num_examples={config.num_examples}"]
        program = [sys.executable, "-m", "beam_pipelines.synthesize", *words]
        subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
        return config.num_examples

    do()
    return do


def _builder(config: StagesConfig, folder: Path) -> Callable[[], int]:
    def do() -> int:
        words = [
            "--runner=DirectRunner",
            "--balance=none",
            f"--celeba_dir={folder / 'sample-0'}",
            f"--output_dir={folder / 'tfrecords'}",
            "--overwrite",
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            build.main(["build", *words])
        return config.num_examples

    do()
    return do


def _reader(config: StagesConfig, dataset: input_pipeline.Dataset) -> Callable:
    def do() -> int:
        batches = sum(1 for _ in range(_EPOCHS) for _ in _batches(config, dataset))
        return batches * config.batch_size

    return do


def _batches(config: StagesConfig, dataset: input_pipeline.Dataset):
    return input_pipeline.train_batches(dataset, config.batch_size, 0, 0, _AUGMENTATION)


if __name__ == "__main__":
    command.run(main)
