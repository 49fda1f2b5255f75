"""Devices, precision, XLA and seeds: what a run really uses, decided once."""

import contextlib
import dataclasses
import os
import platform
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from support import memory
from support.errors import usage_error
from support.hardware import cpu_info
from trainer.config import TrainConfig

POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
#: First CUDA compute capabilities with fast bfloat16, with fast float16.
_BFLOAT16_GPU, _FLOAT16_GPU = (8, 0), (7, 0)


@dataclasses.dataclass(frozen=True)
class Runtime:
    """The effective settings, as they go into run.json."""

    strategy: Any
    precision: str
    xla: bool
    devices: tuple[str, ...]
    device_name: str

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    def describe(self) -> dict[str, Any]:
        return {
            "precision": self.precision,
            "xla": self.xla,
            "devices": list(self.devices),
            "device_name": self.device_name,
            "replicas": self.replicas,
            "strategy": type(self.strategy).__name__,
        }


def prepare(config: TrainConfig) -> Runtime:
    """Chooses devices, sets the precision policy and every seed.

    Raises:
      UserError: more replicas than there are GPUs, or a GPU is asked for and there is
        none (exit 2).
    """
    keras.utils.set_random_seed(config.seed)

    gpus = _choose_gpus(config.device)
    devices = _choose_devices(config.replicas, gpus)
    strategy = _strategy(devices)
    precision = _choose_precision(config.precision, gpus)
    keras.mixed_precision.set_dtype_policy(POLICIES[precision])
    xla = config.xla == "on" or (config.xla == "auto" and bool(gpus))
    return Runtime(
        strategy,
        precision,
        xla,
        tuple(devices),
        _device_name(gpus),
    )


def _choose_gpus(device: str) -> list:
    """The GPUs to train on, none for the CPU."""
    if device == "cpu":
        # Not even their memory is touched: they may be another's.
        tf.config.set_visible_devices([], "GPU")
        return []
    gpus = tf.config.list_physical_devices("GPU")
    hidden = not gpus and Path("/dev/nvidia0").exists()
    if device == "gpu" and not gpus:
        raise usage_error(
            "--device=gpu, but TensorFlow finds no GPU"
            + (", though this machine has an NVIDIA GPU." if hidden else "."),
            "Install its libraries with `make install EXTRAS=gpu` after `make clean`."
            if hidden
            else "Check that `nvidia-smi` lists one, or use --device=auto.",
        )
    if hidden:
        print(
            "note: this machine has an NVIDIA GPU, but TensorFlow finds none; training "
            "on the CPU.\n      Install its libraries with `make install EXTRAS=gpu`."
        )
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return gpus


def _strategy(devices: list[str]) -> tf.distribute.Strategy:
    if devices[0].startswith("GPU"):
        return tf.distribute.MirroredStrategy(devices)
    # Collectives of logical CPUs are numbered per process, not per strategy: a second
    # run in one process would meet the shapes of the first.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def _choose_devices(replicas: int, gpus: list) -> list[str]:
    kind = "GPU" if gpus else "CPU"
    if kind == "CPU" and replicas > 1:
        _split_cpu(replicas)
    available = tf.config.list_logical_devices(kind)
    requested = replicas or (len(available) if gpus else 1)
    if requested > len(available):
        raise usage_error(
            f"--replicas={replicas}, but there are {len(available)} {kind}s.",
            f"Use --replicas={len(available)} or fewer.",
        )
    return [f"{kind}:{index}" for index in range(requested)]


def _split_cpu(replicas: int) -> None:
    """Makes logical CPUs: no faster, but the same code path as several GPUs."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    existing = tf.config.get_logical_device_configuration(cpu) or []
    if len(existing) >= replicas:
        return
    logical = [tf.config.LogicalDeviceConfiguration()] * replicas
    try:
        tf.config.set_logical_device_configuration(cpu, logical)
    except RuntimeError as error:
        raise usage_error(
            f"--replicas={replicas} came after TensorFlow had started.",
            "Start a new process for it.",
        ) from error


def _choose_precision(requested: str, gpus: list) -> str:
    if requested != "auto":
        return requested
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = details.get("compute_capability") or (0, 0)
        if capability >= _BFLOAT16_GPU:
            return "bfloat16"
        return "float16" if capability >= _FLOAT16_GPU else "float32"
    return "bfloat16" if "avx512_bf16" in cpu_info("flags").split() else "float32"


def _device_name(gpus: list) -> str:
    if not gpus:
        name = cpu_info("model name") or platform.processor() or platform.machine()
        return f"{name}, {os.cpu_count()} cores"
    details = tf.config.experimental.get_device_details(gpus[0])
    return details.get("device_name", "GPU")


def memory_errors(batch_size: int) -> contextlib.AbstractContextManager[None]:
    """Names a smaller --batch_size (exit 7) where memory runs out."""
    return memory.named(f"Use --batch_size={max(1, batch_size // 2)}.")
