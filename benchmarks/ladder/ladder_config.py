"""The ladder's options."""

import dataclasses

from benchmarks import budget
from support import command
from support.errors import did_you_mean, usage_error
from support.images import require_local
from trainer.config import MODELS, PRECISIONS, TrainConfig

ALL = "all"
#: In the order in which an image meets them.
RUNGS = (
    "read",
    "parse",
    "decode",
    "batch",
    "transfer",
    "warp",
    "forward",
    "step",
    "train",
    "evaluation",
)


@dataclasses.dataclass(frozen=True)
class LadderConfig:
    """What to measure."""

    data_dir: str = command.option("data/tfrecords", "Dataset folder to read from.")
    model: str = command.option("googlenet", "Architecture of the train step.")
    input_size: int = command.option(96, "Side of the square model input, pixels.")
    batch_size: int = command.option(32, "Examples per batch.")
    precision: str = command.option("auto", "auto, float32, bfloat16 or float16.")
    rungs: tuple[str, ...] = command.option(
        (ALL,), f"Some of {', '.join(RUNGS)}, or all."
    )
    budget: str = command.option(
        "5m", "Time for all of it, like 60s or 5m: the work is made to fit."
    )
    try_suggestion: bool = command.option(
        False, "Also train with the suggested flag, and say what it changes."
    )
    write: bool = command.option(False, "Write the result to benchmarks/results.")

    def __post_init__(self):
        require_local(self.data_dir, "data_dir")
        choices = {
            "model": ((self.model,), MODELS),
            "precision": ((self.precision,), PRECISIONS),
            "rungs": (self.rungs, (ALL, *RUNGS)),
        }
        for flag, (values, known) in choices.items():
            for value in values or ("",):
                if value not in known:
                    raise usage_error(
                        f"--{flag}={value} is none of {', '.join(known)}.",
                        did_you_mean(value, known),
                    )
        budget.parse_duration(self.budget, "budget")
        self.train_config()  # checks the rest

    @property
    def seconds(self) -> float:
        """Of the budget."""
        return budget.parse_duration(self.budget, "budget")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The rungs to measure, in their order; training is compared with the step."""
        wanted = set(RUNGS if ALL in self.rungs else self.rungs)
        if "train" in wanted:
            wanted.add("step")
        return tuple(rung for rung in RUNGS if rung in wanted)

    def train_config(self) -> TrainConfig:
        """What `trainer.main` would be told, on one device."""
        return TrainConfig(
            model=self.model,
            data_dir=self.data_dir,
            input_size=self.input_size,
            batch_size=self.batch_size,
            precision=self.precision,
            replicas=1,
        )
