"""The cost of input in training, from rates alone; the flag that would reduce it.

Differential analysis as in Mohan, Phanishayee, Raniwala and Chidambaram, "Analyzing and
Mitigating Data Stalls in DNN Training" (DS-Analyzer), VLDB 2021: the same steps on a
batch that stays on the device, then on images decoded before, then decoded from files
in memory, then from the disk. What each takes longer than the one before is the price
of what was added.
"""

import dataclasses
from collections.abc import Mapping

#: Stages of training, each with more work for the input than the one before.
STEP = "train step"
CACHED, WARM, COLD = (
    "train, decoded images",
    "train, shards in page cache",
    "train, shards on disk",
)
#: Way of reading -> what it is, what it adds to the one before, and in words.
_WAYS = {
    CACHED: (
        "from decoded images in memory",
        "transfer",
        "assembling batches and bringing them to the device",
    ),
    WARM: ("from shards in the page cache", "decode", "reading and decoding"),
    COLD: ("from shards on the disk", "disk", "the disk"),
}
WAYS = tuple(_WAYS)
#: Fraction of the time below which waiting is not worth a change.
_TOLERABLE = 0.02
#: A GPU that reaches less of its matrix products has too little to do at a time.
_BUSY = 0.3

#: Images per second by stage, those of STEP and WAYS.
Rates = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Conditions of the measurement, as far as a suggestion needs them.

    Attributes:
      gpu: whether the device is one.
      xla: whether the train step is compiled.
      precision: in use.
      auto_precision: what `--precision=auto` would use.
      batch_size: examples per step.
      matmul_fraction: what the step reaches of the machine's matrix products, 0..1.
      cache_mb: what --cache_mb needs for the training and validation images, MB.
      usual: how `trainer.main` reads after its first epoch, `CACHED` unless --cache_mb
        by default is too little, `COLD` if not even the files fit into memory.
      cache_fits: whether there is memory for `cache_mb`.
    """

    gpu: bool
    xla: bool
    precision: str
    auto_precision: str
    batch_size: int
    matmul_fraction: float
    cache_mb: int
    usual: str
    cache_fits: bool


def waiting(rates: Rates, way: str) -> float:
    """The fraction of the time that training waits for its input, 0..1."""
    return max(0.0, 1 - rates[way] / rates[STEP])


def parts(rates: Rates, way: str) -> dict[str, float]:
    """The waiting by its cause, as fractions of the time; below 0 where faster."""
    found, before = {}, STEP
    for after in WAYS[: WAYS.index(way) + 1]:
        found[after] = (1 / rates[after] - 1 / rates[before]) * rates[way]
        before = after
    return found


def noise_of(first: tuple[float, ...], again: tuple[float, ...]) -> float:
    """The mean distance of the same thing measured twice in a round, as a fraction."""
    apart = [2 * abs(a - b) / (a + b) for a, b in zip(first, again, strict=True)]
    return sum(apart) / len(apart)


def describe(rates: Rates, noise: float) -> str:
    """One line on the time spent waiting, in each way of reading."""

    def fraction(value: float) -> str:
        return "noise" if abs(value) < noise else f"{value:.1%}"

    lines = [f"{_WAYS[way][0]} {fraction(waiting(rates, way))}" for way in WAYS]
    causes = parts(rates, COLD).items()
    parted = [f"{_WAYS[way][1]} {fraction(value)}" for way, value in causes]
    return f"Waiting for input: {'; '.join(lines)} ({', '.join(parted)})."


def verdict(rates: Rates, setting: Setting, noise: float) -> tuple[str, str, str]:
    """Names the bottleneck of training, and at most one flag.

    Args:
      rates: measured.
      setting: what they were measured with.
      noise: as `noise_of` gives it; smaller differences count as none.

    Returns:
      the bottleneck in a sentence, a flag to change or "nothing", and why.
    """
    way = setting.usual
    stalled, source = waiting(rates, way), _WAYS[way][0]
    if stalled <= max(noise, _TOLERABLE):
        reached = min(1.0, rates[way] / rates[STEP])
        return (
            f"The train step is the bottleneck: {source}, training reaches "
            f"{reached:.0%} of its rate on a batch that stays on the device.",
            *_for_the_step(setting),
        )
    causes = parts(rates, way)
    cause = max(causes, key=causes.get)
    return (
        f"The input is the bottleneck: {source}, training waits {stalled:.0%} of its "
        f"time, most of it for {_WAYS[cause][2]}.",
        *_for_the_input(cause, setting),
    )


def _for_the_step(setting: Setting) -> tuple[str, str]:
    if setting.precision != setting.auto_precision:
        return "--precision=auto", f"{setting.auto_precision} is fastest on this device"
    if setting.gpu and not setting.xla:
        return "--xla=on", "XLA fuses the small operations of the step"
    reached = f"the step reaches {setting.matmul_fraction:.0%} of the matrix products"
    if setting.gpu and setting.matmul_fraction < _BUSY:
        larger = f"--batch_size={2 * setting.batch_size}"
        return larger, f"{reached}: more images at a time keep the GPU busier"
    return "nothing", f"{reached}; a smaller --input_size would be another model"


def _for_the_input(cause: str, setting: Setting) -> tuple[str, str]:
    if cause == CACHED:
        larger = f"--batch_size={2 * setting.batch_size}"
        return larger, "fewer and larger batches are cheaper to make and to move"
    if setting.cache_fits:
        cache = f"--cache_mb={setting.cache_mb}"
        return cache, "the images fit into memory, where they are decoded only once"
    cure = "a faster disk" if cause == COLD else "more cores"
    return (
        "nothing",
        f"the decoded images do not fit into memory; {cure}, or a dataset built with "
        "a smaller --image_size, would help",
    )
