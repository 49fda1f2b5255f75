"""The trainer's options: one frozen dataclass that cannot be wrong."""

import dataclasses
import math

from support.command import option, outside_ranges
from support.errors import did_you_mean, usage_error
from support.images import require_local
from trainer.architectures import ARCHITECTURES, architecture

MODELS = tuple(ARCHITECTURES)
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
SWITCHES = ("auto", "on", "off")
DEVICES = ("auto", "cpu", "gpu")
REGIMES = ("scratch", "transfer", "finetune")
SCHEDULES = ("cosine", "constant")
#: Smallest and largest side of a model's input, pixels.
INPUT_SIZES = (32, 1024)
#: Records to shuffle among: 120 MB of CelebA's, which are 7 kB each.
SHUFFLE_BUFFER = 16_384
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
    batch_size: int = option(32, "Global batch: examples per step over all replicas.")
    epochs: int = option(40, "Passes over the training split, at most.")
    learning_rate: float = option(1.5e-3, "Peak learning rate.")
    schedule: str = option("cosine", "Learning rate after warm-up: cosine or constant.")
    warmup_epochs: float = option(1.0, "Linear warm-up, in epochs.")
    weight_decay: float = option(0.05, "Decoupled weight decay (AdamW); 0 is Adam.")
    clip_norm: float = option(1.0, "Largest global gradient norm; 0: unclipped.")
    label_smoothing: float = option(
        0.1, "Fraction of each label spread over both.", (0, 0.5)
    )
    ema: float = option(
        0.99, "Decay of the averaged weights; 0: no averaging.", (0, 0.99999)
    )
    mixup: float = option(0.0, "Mix images in pairs, Beta(alpha, alpha); 0: never.")
    aux_attributes: bool = option(
        False, "Train the other 39 attributes too; they are not saved."
    )
    aux_weight: float = option(
        10.0, "Weight of the mean loss of the other attributes, beside the label's."
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
    patience: int = option(
        15, "Epochs without a better validation loss before stopping; 0: never stop."
    )
    seed: int = option(0, "Seed of everything that is random.", (0, 2**32 - 1))
    precision: str = option("auto", "auto, float32, bfloat16 or float16.")
    xla: str = option("auto", "Compile the train step: auto (on GPUs), on or off.")
    device: str = option("auto", "auto: GPUs if there are any; cpu; gpu: or fail.")
    replicas: int = option(0, "Devices to train on; 0: every GPU, or the CPU.")
    weights: str = option(NO_WEIGHTS, "Initial weights: none, imagenet or a file.")
    regime: str = option(
        "scratch", "scratch; transfer: only the last layer learns; finetune: all do."
    )
    checkpoint_every: int = option(0, "Steps between checkpoints; 0: once per epoch.")
    tensorboard: bool = option(True, "Write events for TensorBoard.")
    profile_steps: tuple[int, ...] = option(
        (0, 0), "A,B: trace steps A to B, counted from 1; 0,0: none."
    )
    shuffle_buffer: int = option(
        SHUFFLE_BUFFER,
        "Records to shuffle among; images decoded in memory: all of them.",
    )
    cache_mb: int = option(
        -1, "Memory for decoded images, MB; 0: none; -1: a quarter of what is free."
    )
    report_images: bool = option(True, "Show test images in the report.")

    def __post_init__(self):
        require_local(self.data_dir, "data_dir")
        if self.run_dir:
            require_local(self.run_dir, "run_dir")
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise usage_error(f"--{name}={value} is no number.", "Give a number.")
        for name, least in _AT_LEAST.items():
            _check(name, getattr(self, name), least <= getattr(self, name), least)
        for name, low, high in outside_ranges(self):
            raise usage_error(
                f"--{name}={getattr(self, name)} is not between {low} and {high}.",
                f"Choose a value in {low}..{high}.",
            )
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise usage_error(
                    f"--{name}={value} is none of {', '.join(choices)}.",
                    did_you_mean(value, choices),
                )
        smallest = architecture(self.model).smallest_input
        if self.input_size < smallest:
            raise usage_error(
                f"{self.model} takes images of {smallest} pixels or more, not of "
                f"--input_size={self.input_size}.",
                f"Use --input_size={smallest} or more.",
            )
        if self.learning_rate <= 0:
            raise usage_error(
                f"--learning_rate={self.learning_rate} is not above 0.",
                "Try --learning_rate=0.001.",
            )
        self._check_regime()
        if self.aux_heads:
            self._check_aux_heads()
        self._check_profile_steps()

    @property
    def augmentation(self) -> Augmentation:
        names = [field.name for field in dataclasses.fields(Augmentation)]
        return Augmentation(**{name: getattr(self, name) for name in names})

    def _check_regime(self):
        if self.regime == "scratch" and self.weights != NO_WEIGHTS:
            raise usage_error(
                f"--regime=scratch starts from random weights, not {self.weights}.",
                "Use --regime=finetune, or --weights=none.",
            )
        if self.regime != "scratch" and self.weights == NO_WEIGHTS:
            raise usage_error(
                f"--regime={self.regime} needs weights to start from.",
                "Add --weights=imagenet or --weights=FILE.",
            )
        if self.regime == "transfer" and self.aux_attributes:
            raise usage_error(
                "--aux_attributes does nothing with --regime=transfer: the attributes "
                "share the backbone, which is frozen.",
                "Use --regime=finetune, or leave --aux_attributes out.",
            )

    def _check_aux_heads(self):
        if self.model != AUX_HEADS_MODEL:
            raise usage_error(
                f"--aux_heads: {self.model} has no auxiliary heads.",
                f"Use --model={AUX_HEADS_MODEL}, or leave --aux_heads out.",
            )
        if self.input_size < AUX_HEADS_LEAST_SIZE:
            raise usage_error(
                f"--aux_heads needs --input_size={AUX_HEADS_LEAST_SIZE} or more, not "
                f"{self.input_size}.",
                f"Use --input_size={AUX_HEADS_LEAST_SIZE}, or leave --aux_heads out.",
            )
        if self.regime == "transfer":
            raise usage_error(
                "--aux_heads does nothing with --regime=transfer: the heads train the "
                "backbone, which is frozen.",
                "Use --regime=finetune, or leave --aux_heads out.",
            )

    def _check_profile_steps(self):
        given = ",".join(str(step) for step in self.profile_steps)
        if self.profile_steps == (0, 0):
            return
        if len(self.profile_steps) != 2 or not (
            1 <= self.profile_steps[0] <= self.profile_steps[1]
        ):
            raise usage_error(
                f"--profile_steps={given} is no first and last step, counted from 1.",
                "Write it like --profile_steps=10,15.",
            )


_AT_LEAST = {
    "batch_size": 1,
    "epochs": 1,
    "warmup_epochs": 0,
    "weight_decay": 0,
    "clip_norm": 0,
    "aux_weight": 0,
    "mixup": 0,
    "patience": 0,
    "replicas": 0,
    "checkpoint_every": 0,
    "shuffle_buffer": 1,
    "cache_mb": -1,
}
_CHOICES = {
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "xla": SWITCHES,
    "device": DEVICES,
    "regime": REGIMES,
}


def _check(name: str, value: float, holds: bool, least: float) -> None:
    if not holds:
        raise usage_error(
            f"--{name}={value} is below {least}.", f"Choose {least} or more."
        )
