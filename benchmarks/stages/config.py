"""Options of the stage breakdown."""

import dataclasses
import re

from benchmarks.options import check_choices
from support import command
from support.errors import usage_error
from trainer.config import TrainConfig

ALL = "all"
#: In the order in which an image meets them.
STAGES = tuple(
    "read parse decode batch transfer warp forward step train evaluation".split()
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclasses.dataclass(frozen=True)
class StagesConfig:
    """Dataset, training options and stages to measure."""

    data_dir: str = command.option("data/tfrecords", "Dataset directory to read from.")
    model: str = command.option("googlenet", "Architecture of the train step.")
    input_size: int = command.option(96, "Side of the square model input, pixels.")
    batch_size: int = command.option(32, "Examples per batch.")
    precision: str = command.option("auto", "auto, float32, bfloat16 or float16.")
    stages: tuple[str, ...] = command.option(
        (ALL,), f"Some of {', '.join(STAGES)}, or all."
    )
    budget: str = command.option(
        "5m", "Time for all of it, like 60s or 5m: the work is made to fit."
    )
    write: bool = command.option(False, "Write the result to benchmarks/results.")

    def __post_init__(self):
        check_choices("stages", self.stages, (ALL, *STAGES))
        if not self.seconds > 0:
            raise usage_error(
                f"--budget={self.budget} is not a duration above 0.",
                "Write it like --budget=60s or --budget=5m.",
            )
        self.train_config()  # checks the rest

    @property
    def seconds(self) -> float:
        """Seconds of the budget; 0 if it is not a duration."""
        match = _DURATION.fullmatch(self.budget.strip().lower())
        return float(match[1]) * _UNITS[match[2]] if match else 0.0

    @property
    def chosen(self) -> tuple[str, ...]:
        """The stages to measure, in order; training is compared with the step."""
        names = set(STAGES if ALL in self.stages else self.stages)
        if "train" in names:
            names.add("step")
        return tuple(stage for stage in STAGES if stage in names)

    def train_config(self) -> TrainConfig:
        """Options of `trainer.main`, on one device."""
        return TrainConfig(
            model=self.model,
            data_dir=self.data_dir,
            input_size=self.input_size,
            batch_size=self.batch_size,
            precision=self.precision,
            replicas=1,
        )
