"""The train step on TensorFlow, one case to a process; `benchmarks.step` runs it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

# The package trainer switches oneDNN on before anything imports TensorFlow.
import trainer.quiet  # noqa: F401

# isort: split
import keras
import tensorflow as tf

from benchmarks import step_settings, step_worker, turns
from schemas import celeba
from schemas.manifest import Manifest, Shard
from trainer import job as jobs
from trainer import learner, models, runtime, wakeup
from trainer.config import TrainConfig
from trainer.input_pipeline import ATTRIBUTES, IMAGES, LABELS, PARAMETERS, Dataset
from trainer.optimizer import Optimizer, Schedule
from trainer.runtime import Runtime
from trainer.steps import TrainStep

_STEPS_PER_EPOCH = 100


class StepWithoutWarp(TrainStep):
    """The same step on images that are warped already."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._warp = lambda images, parameters: images


def device() -> dict[str, str]:
    effective = runtime.prepare(TrainConfig())
    gpu = effective.device_name if effective.devices[0].startswith("GPU") else ""
    return {"precision": effective.precision, "gpu": gpu}


def prepare(task: dict[str, Any]) -> turns.Work:
    """Builds the case `task["case"]`: ours, warp, stock or keras."""
    config = TrainConfig(
        model=task["model"],
        input_size=task["size"],
        batch_size=task["batch_size"],
        precision=task["precision"],
        replicas=1,
    )
    effective = runtime.prepare(config)
    build = _keras if task["case"] == "keras" else _ours
    model, step, wait = build(config, effective, task["case"])
    gpus = tf.config.list_physical_devices("GPU")
    multiply, operations = _matmul(effective.precision, bool(gpus))

    def device_bytes() -> int:
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpus else 0

    facts = step_worker.facts(model)
    return turns.Work(
        config.batch_size, step, wait, multiply, operations, facts, device_bytes
    )


def _ours(config: TrainConfig, effective: Runtime, case: str) -> tuple:
    """The trainer's own step, or with fewer of the layers that make it fast."""
    job = jobs.build_job(config, effective, _dataset(config))
    model, optimizer, step = job.learner, job.optimizer, job.train_step
    if case == "stock":
        model = models.build(config.model, config.input_size, dropout=config.dropout)
        model = keras.Model(model.input, {learner.LOGIT: model.output})
        optimizer = _optimizer(config, effective, model)
    if case != "warp":
        step = StepWithoutWarp(
            model, optimizer, job.objective, effective.xla, effective.strategy
        )
    drawn = step_worker.draw(config.input_size, config.batch_size)
    batch = {
        IMAGES: tf.constant(drawn.images if case == "warp" else drawn.warped),
        PARAMETERS: tf.constant(drawn.parameters),
        LABELS: tf.constant(drawn.labels),
        ATTRIBUTES: tf.zeros([config.batch_size, len(celeba.ATTRIBUTES)]),
    }
    return model, lambda: step(batch), lambda: step.sums.numpy()


def _optimizer(
    config: TrainConfig, effective: Runtime, model: keras.Model
) -> Optimizer:
    total = _STEPS_PER_EPOCH * config.epochs
    return Optimizer(
        [variable.value for variable in model.trainable_variables],
        Schedule(config.learning_rate, _STEPS_PER_EPOCH, total, cosine=True),
        config.weight_decay,
        config.clip_norm,
        config.ema,
        scale_loss=effective.precision == "float16",
    )


def _keras(config: TrainConfig, _effective: Runtime, _case: str) -> tuple:
    model = step_worker.compiled_model(config.model, config.input_size)
    drawn = step_worker.draw(config.input_size, config.batch_size)
    images, labels = tf.constant(drawn.warped), tf.constant(drawn.labels[:, None])
    # It returns the loss as a number, and so waits for every step.
    return model, lambda: model.train_on_batch(images, labels), lambda: None


def _dataset(config: TrainConfig) -> Dataset:
    """A manifest without files: the job takes only counts and shapes from it."""
    count = _STEPS_PER_EPOCH * config.batch_size
    shard = Shard("none", "train", count, 0, "", (count // 2, count - count // 2))
    shape = (step_worker.HEIGHT, step_worker.WIDTH, 3)
    return Dataset(Path(), Manifest("Male", shape, {}, (1.0, 1.0), {}, (shard,)))


def _matmul(precision: str, gpu: bool) -> tuple[Callable[[], Any], float]:
    side, products = step_settings.GPU_MATMUL if gpu else step_settings.CPU_MATMUL

    def make():
        first, second = (
            tf.cast(matrix, precision) for matrix in step_worker.matrices(side)
        )

        @tf.function
        def multiply():
            product = first
            for _ in range(products):
                product = tf.matmul(product, second)
            return product[0, 0]

        return lambda: multiply().numpy()

    return turns.made_once(make), 2.0 * side**3 * products


if __name__ == "__main__":
    with wakeup.Watch():
        turns.serve(prepare, device)
