"""Where the time of training goes, from rates alone; what limits it, what to change.

Differential analysis as in Mohan, Phanishayee, Raniwala and Chidambaram, "Analyzing and
Mitigating Data Stalls in DNN Training" (DS-Analyzer), VLDB 2021: the same steps on a
batch that is there already, then on images decoded before, then decoded anew from files
in memory, then from the disk. What each takes longer than the one before is the price
of what was added.
"""

import dataclasses

#: A share of the time below which waiting is not worth a change.
_TOLERABLE = 0.02
#: A GPU that reaches less of its matrix products has too little to do at a time.
_BUSY = 0.3
TRANSFER, DECODE, DISK = "transfer", "decode", "disk"
CACHED, WARM, COLD = "cached", "warm", "cold"
_WAYS = {
    CACHED: "from decoded images in memory",
    WARM: "from shards in the page cache",
    COLD: "from shards on the disk",
}
_BLAMED = {
    TRANSFER: "assembling batches and bringing them to the device",
    DECODE: "reading and decoding",
    DISK: "the disk",
}


@dataclasses.dataclass(frozen=True)
class Rates:
    """Images per second of the same training.

    Attributes:
      synthetic: on one batch that stays on the device.
      cached: from decoded images in memory.
      warm: decoded from shards in the page cache.
      cold: decoded from shards on the disk.
    """

    synthetic: float
    cached: float
    warm: float
    cold: float

    def waiting(self, way: str) -> float:
        """The share of the time that training in this way waits for input, 0..1."""
        return max(0.0, 1 - getattr(self, way) / self.synthetic)

    def shares(self, way: str) -> dict[str, float]:
        """What the waiting is for, as shares of the time; below 0 where faster."""
        seconds = [1 / self.synthetic, 1 / self.cached, 1 / self.warm, 1 / self.cold]
        total = 1 / getattr(self, way)
        added = [
            (after - before) / total
            for before, after in zip(seconds[:-1], seconds[1:], strict=True)
        ]
        parts = dict(zip((TRANSFER, DECODE, DISK), added, strict=True))
        wanted = {CACHED: 1, WARM: 2, COLD: 3}[way]
        return dict(list(parts.items())[:wanted])


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the rates were measured with, as far as a suggestion needs it.

    Attributes:
      gpu: whether the device is one.
      xla: whether the train step is compiled.
      precision: in use.
      auto_precision: what `--precision=auto` would use.
      batch_size: examples per step.
      matmul_share: what the step reaches of the machine's matrix products, 0..1.
      cache_mb: what --cache_mb needs to hold training and validation images, MB.
      usual: how `trainer.main` reads after its first epoch, `CACHED` unless --cache_mb
        by default is too little, `COLD` if not even the files fit into memory.
      cache_fits: whether there is memory for `cache_mb`.
    """

    gpu: bool
    xla: bool
    precision: str
    auto_precision: str
    batch_size: int
    matmul_share: float
    cache_mb: int
    usual: str
    cache_fits: bool


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What limits training, and what to change.

    Attributes:
      sentence: the limit.
      field: the option of `trainer.main` to change, empty for none.
      value: its new value.
      reason: for the change, or for none.
    """

    sentence: str
    field: str
    value: int | str
    reason: str

    @property
    def suggestion(self) -> str:
        return f"--{self.field}={self.value}" if self.field else "nothing"


def noise_of(first: tuple[float, ...], again: tuple[float, ...]) -> float:
    """How far apart the same thing is when it is measured twice, as a share.

    Args:
      first: its rates, one for each round.
      again: those of the same rounds under another name.

    Returns:
      the mean distance between the two in a round, relative to their mean.
    """
    apart = [2 * abs(a - b) / (a + b) for a, b in zip(first, again, strict=True)]
    return sum(apart) / len(apart)


def describe(rates: Rates, noise: float) -> str:
    """One line on the time spent waiting, in each way of reading."""
    lines = []
    for way in (CACHED, WARM, COLD):
        waiting = rates.waiting(way)
        text = "noise" if waiting < noise else f"{waiting:.1%}"
        if way == COLD and text != "noise":
            parts = rates.shares(way).items()
            text += f" ({', '.join(_part(*part, noise) for part in parts)})"
        lines.append(f"{_WAYS[way]} {text}")
    return "Waiting for input: " + "; ".join(lines) + "."


def _part(name: str, share: float, noise: float) -> str:
    return f"{name} {'noise' if abs(share) < noise else f'{share:.1%}'}"


def verdict(rates: Rates, setting: Setting, noise: float) -> Verdict:
    """Says in one sentence what limits training, and names at most one flag.

    Args:
      rates: measured.
      setting: what they were measured with.
      noise: as `noise_of` gives it; smaller differences count as none.
    """
    way = setting.usual
    waiting = rates.waiting(way)
    if waiting <= max(noise, _TOLERABLE):
        reached = min(1.0, getattr(rates, way) / rates.synthetic)
        sentence = (
            f"The train step is the limit: {_WAYS[way]}, training reaches "
            f"{reached:.0%} of its rate on a batch that is there already."
        )
        return Verdict(sentence, *_for_the_step(setting))
    parts = rates.shares(way)
    blamed = max(parts, key=parts.get)
    sentence = (
        f"The input is the limit: {_WAYS[way]}, training waits {waiting:.0%} of its "
        f"time, most of it for {_BLAMED[blamed]}."
    )
    return Verdict(sentence, *_for_the_input(blamed, setting))


def _for_the_step(setting: Setting) -> tuple[str, int | str, str]:
    if setting.precision != setting.auto_precision:
        return (
            "precision",
            "auto",
            f"it is {setting.auto_precision} here, the fastest precision that this "
            "device supports well",
        )
    if setting.gpu and not setting.xla:
        return "xla", "on", "XLA fuses the small operations of the step"
    if setting.gpu and setting.matmul_share < _BUSY:
        return (
            "batch_size",
            2 * setting.batch_size,
            f"the step reaches {setting.matmul_share:.0%} of the GPU's matrix "
            "products: more images at a time keep it busier",
        )
    return (
        "",
        "",
        f"the step is the limit, at {setting.matmul_share:.0%} of this machine's "
        "matrix products; a smaller model or --input_size would be another model",
    )


def _for_the_input(blamed: str, setting: Setting) -> tuple[str, int | str, str]:
    if blamed == TRANSFER:
        return (
            "batch_size",
            2 * setting.batch_size,
            "fewer and larger batches are cheaper to make and to move",
        )
    if setting.cache_fits:
        return (
            "cache_mb",
            setting.cache_mb,
            "the images fit into memory, where they are decoded only once",
        )
    if blamed == DISK:
        what = "a faster disk, or a dataset built with a smaller --image_size, would"
    else:
        what = "more cores, or a dataset built with a smaller --image_size, would"
    return "", "", f"the decoded images do not fit into memory; {what} help"
