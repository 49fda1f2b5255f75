"""The trainer's options: one frozen dataclass that cannot be wrong."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from support.command import option, outside_ranges
from support.errors import did_you_mean, usage_error
from support.images import require_local
from trainer.architectures import ARCHITECTURES, architecture

MODELS = tuple(ARCHITECTURES)
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
REGIMES = ("scratch", "transfer", "finetune")
#: Smallest and largest side of a model's input, pixels.
INPUT_SIZES = (32, 1024)
#: Records to shuffle among: 120 MB of CelebA's, which are 7 kB each.
SHUFFLE_BUFFER = 16_384
#: Ranges without an upper end.
FROM_0, FROM_1 = (0, math.inf), (1, math.inf)
NO_WEIGHTS = "none"
IMAGENET = "imagenet"
#: The architecture with auxiliary heads, and the input that leaves them 8×8 cells.
AUX_HEADS_MODEL, AUX_HEADS_LEAST_SIZE = "googlenet", 128

#: Options that say where and how a run works, not what it computes.
NOT_COMPARED = (
    "data_dir",
    "run_dir",
    "report_images",
    "checkpoint_every",
    "tensorboard",
    "profile_steps",
)


def check_numbers(config: Any) -> None:
    """Raises exit 2 if an option is no finite number, or not within its range."""
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise usage_error(f"--{name}={value} is not a number.", "Give a number.")
    for name, low, high in outside_ranges(config):
        value, at_least = getattr(config, name), high == math.inf
        raise usage_error(
            f"--{name}={value} is "
            + (f"below {low}." if at_least else f"not between {low} and {high}."),
            f"Choose {low} or more." if at_least else f"Choose from {low}..{high}.",
        )


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Strengths of the random changes to training images; each field is a flag.

    Raises:
      ValueError: one is outside its range.
    """

    rotation: float = option(20.0, "Random rotation, ± degrees.", (0, 180))
    width_shift: float = option(0.1, "Random shift, ± fraction of the width.", (0, 1))
    height_shift: float = option(0.1, "Random shift, ± fraction of the height.", (0, 1))
    horizontal_flip: bool = option(True, "Mirror half of the images.")
    # A zoom of 1 would show a single point.
    zoom: float = option(0.0, "Random zoom: the scale is 1 ± this.", (0, 0.9))
    brightness: float = option(0.0, "Random brightness, ± fraction of 255.", (0, 1))
    contrast: float = option(0.0, "Random contrast: its factor is 1 ± this.", (0, 1))

    def __post_init__(self):
        for name, low, high in outside_ranges(self):
            raise ValueError(f"{name}={getattr(self, name)}: expected {low}..{high}")


@dataclasses.dataclass(frozen=True)
class TrainConfig(Augmentation):
    """Everything that `python -m trainer.main` can be told; each field is a flag."""

    model: str = option("googlenet", f"Architecture: {', '.join(MODELS)}.")
    data_dir: str = option("data/tfrecords", "Dataset folder, as the build wrote it.")
    run_dir: str = option("", "Run folder; empty: a dated one under runs/.")
    input_size: int = option(96, "Side of the square model input, pixels.", INPUT_SIZES)
    batch_size: int = option(
        32, "Global batch: examples per step over all replicas.", FROM_1
    )
    epochs: int = option(40, "Passes over the training split, at most.", FROM_1)
    learning_rate: float = option(1.5e-3, "Peak learning rate.")
    schedule: str = option("cosine", "Learning rate after warm-up: cosine or constant.")
    warmup_epochs: float = option(1.0, "Linear warm-up, in epochs.", FROM_0)
    weight_decay: float = option(
        0.05, "Decoupled weight decay (AdamW); 0 is Adam.", FROM_0
    )
    clip_norm: float = option(
        1.0, "Largest global gradient norm; 0: unclipped.", FROM_0
    )
    label_smoothing: float = option(
        0.1, "Fraction of each label spread over both.", (0, 0.5)
    )
    ema: float = option(
        0.99, "Decay of the averaged weights; 0: no averaging.", (0, 0.99999)
    )
    mixup: float = option(
        0.0, "Mix images in pairs, Beta(alpha, alpha); 0: never.", FROM_0
    )
    aux_attributes: bool = option(
        False, "Train the other 39 attributes too; they are not saved."
    )
    aux_weight: float = option(
        10.0,
        "Weight of the auxiliary attributes' mean loss; the label's has 1.",
        FROM_0,
    )
    aux_heads: bool = option(
        False, "Train GoogLeNet's two auxiliary heads too; they are not saved."
    )
    dropout: float = option(0.2, "Dropout before the last layer.", (0, 0.9))
    augment: str = option(
        "warp",
        "Augmentation: warp (all in one sampling), keras (its layers), erasing, "
        "none, or another entry of the table in trainer/augmentation.py.",
    )
    flip_average: bool = option(
        False, "Average each logit with the mirror image's; the saved model does it."
    )
    patience: int = option(
        15,
        "Epochs without a better validation loss before stopping; 0: never stop.",
        FROM_0,
    )
    seed: int = option(0, "Seed of everything that is random.", (0, 2**32 - 1))
    precision: str = option("auto", "auto, float32, bfloat16 or float16.")
    xla: str = option("auto", "Compile the train step: auto (on GPUs), on or off.")
    device: str = option("auto", "auto: GPUs if there are any; cpu; gpu: or fail.")
    replicas: int = option(0, "Devices to train on; 0: every GPU, or the CPU.", FROM_0)
    weights: str = option(NO_WEIGHTS, "Initial weights: none, imagenet or a file.")
    regime: str = option(
        "scratch", "scratch; transfer: only the last layer learns; finetune: all do."
    )
    checkpoint_every: int = option(
        0, "Steps between checkpoints; 0: once per epoch.", FROM_0
    )
    tensorboard: bool = option(True, "Write events for TensorBoard.")
    profile_steps: tuple[int, ...] = option(
        (0, 0), "A,B: trace steps A to B, counted from 1; 0,0: none."
    )
    shuffle_buffer: int = option(
        SHUFFLE_BUFFER,
        "Records to shuffle among; images decoded in memory: all of them.",
        FROM_1,
    )
    cache_mb: int = option(
        -1,
        "Memory for decoded images, MB; 0: none; -1: a quarter of what is free.",
        (-1, math.inf),
    )
    report_images: bool = option(True, "Show test images in the report.")

    def __post_init__(self):
        require_local(self.data_dir, "data_dir")
        if self.run_dir:
            require_local(self.run_dir, "run_dir")
        check_numbers(self)
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise usage_error(
                    f"--{name}={value} is none of {', '.join(choices)}.",
                    did_you_mean(value, choices),
                )
        architecture(self.model)  # or there is none of this name
        for cause, remedy in self._conflicts():
            raise usage_error(cause, remedy)

    @property
    def augmentation(self) -> Augmentation:
        names = [field.name for field in dataclasses.fields(Augmentation)]
        return Augmentation(**{name: getattr(self, name) for name in names})

    def _conflicts(self) -> Iterator[tuple[str, str]]:
        """Yields cause and remedy of options that do not go together."""
        smallest = architecture(self.model).smallest_input
        if self.input_size < smallest:
            yield (
                f"{self.model} takes images of {smallest} pixels or more, not of "
                f"--input_size={self.input_size}.",
                f"Use --input_size={smallest} or more.",
            )
        if self.learning_rate <= 0:
            yield (
                f"--learning_rate={self.learning_rate} is not above 0.",
                "Try --learning_rate=0.001.",
            )
        if self.regime == "scratch" and self.weights != NO_WEIGHTS:
            yield (
                f"--regime=scratch starts from random weights, not {self.weights}.",
                "Use --regime=finetune, or --weights=none.",
            )
        if self.regime != "scratch" and self.weights == NO_WEIGHTS:
            yield (
                f"--regime={self.regime} needs weights to start from.",
                "Add --weights=imagenet or --weights=FILE.",
            )
        for flag in ("aux_attributes", "aux_heads"):
            if getattr(self, flag) and self.regime == "transfer":
                yield (
                    f"--{flag} does nothing with --regime=transfer: it trains the "
                    "backbone, which is frozen.",
                    f"Use --regime=finetune, or no --{flag}.",
                )
        if self.aux_heads and self.model != AUX_HEADS_MODEL:
            yield (
                f"--aux_heads: {self.model} has no auxiliary heads.",
                f"Use --model={AUX_HEADS_MODEL}, or no --aux_heads.",
            )
        if self.aux_heads and self.input_size < AUX_HEADS_LEAST_SIZE:
            yield (
                f"--aux_heads needs --input_size={AUX_HEADS_LEAST_SIZE} or more, not "
                f"{self.input_size}.",
                f"Use --input_size={AUX_HEADS_LEAST_SIZE}, or no --aux_heads.",
            )
        steps = self.profile_steps
        if steps != (0, 0) and (len(steps) != 2 or not 1 <= steps[0] <= steps[1]):
            yield (
                f"--profile_steps={','.join(map(str, steps))} is no first and last "
                "step, counted from 1.",
                "Write it like --profile_steps=10,15.",
            )


_CHOICES = {
    "schedule": ("cosine", "constant"),
    "precision": PRECISIONS,
    "xla": ("auto", "on", "off"),
    "device": ("auto", "cpu", "gpu"),
    "regime": REGIMES,
}
