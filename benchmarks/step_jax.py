"""The train step on Keras' JAX backend, without TensorFlow; `benchmarks.step` runs it.

The same mathematics as trainer.steps and trainer.optimizer: smoothed binary
cross-entropy, the gradient's norm clipped, AdamW, averaged weights. Batch
normalization is Keras' own: XLA fuses it.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras

from benchmarks import step_input_jax, step_settings, step_worker, turns
from benchmarks.step_cases import INPUT, OURS
from trainer import models, wakeup, warp

#: Those of trainer.optimizer, which imports TensorFlow; a test compares the two.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
#: The first compute capability with fast bfloat16.
_BFLOAT16_GPU = 8.0
#: Steps that may wait on the device: enough to keep it busy, few enough that the wait
#: for input is not that of a program that has run far ahead.
_IN_FLIGHT = 2


class State(NamedTuple):
    """All that a step changes; lists in the order of the model's variables.

    Attributes:
      trainable, momentum, velocity, average: one array per trainable variable.
      fixed: moving statistics and the seeds of dropout.
      updates: int32, steps taken so far.
      loss: float32, of the last step.
    """

    trainable: list[jax.Array]
    fixed: list[jax.Array]
    momentum: list[jax.Array]
    velocity: list[jax.Array]
    average: list[jax.Array]
    updates: jax.Array
    loss: jax.Array


def initial_state(trainable: list[Any], fixed: list[Any]) -> State:
    """The state before the first step, in arrays of its own: steps overwrite them."""

    def copies(values):
        return [jnp.array(value, copy=True) for value in values]

    zeros = [jnp.zeros(value.shape) for value in trainable]
    return State(
        copies(trainable),
        copies(fixed),
        zeros,
        copies(zeros),
        copies(trainable),
        jnp.zeros((), "int32"),
        jnp.zeros(()),
    )


def update(state: State, gradients: list[jax.Array], rate: float) -> State:
    """Clips the gradients and takes AdamW's step; follows with the averages."""
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(gradient)) for gradient in gradients))
    factor = step_settings.CLIP_NORM / jnp.maximum(norm, step_settings.CLIP_NORM)
    updates = state.updates.astype("float32") + 1
    alpha = rate * jnp.sqrt(1 - BETA_2**updates) / (1 - BETA_1**updates)
    ema = jnp.minimum(step_settings.EMA, updates / (updates + 10))

    def one(variable, gradient, momentum, velocity, average):
        gradient = gradient * factor
        momentum += (gradient - momentum) * (1 - BETA_1)
        velocity += (jnp.square(gradient) - velocity) * (1 - BETA_2)
        change = alpha * momentum / (jnp.sqrt(velocity) + EPSILON)
        if variable.ndim > 1:  # only kernels decay
            change += rate * step_settings.WEIGHT_DECAY * variable
        variable -= change
        return variable, momentum, velocity, average - (average - variable) * (1 - ema)

    slots = zip(
        state.trainable,
        gradients,
        state.momentum,
        state.velocity,
        state.average,
        strict=True,
    )
    trainable, momentum, velocity, average = zip(
        *(one(*slot) for slot in slots), strict=True
    )
    return state._replace(
        trainable=list(trainable),
        momentum=list(momentum),
        velocity=list(velocity),
        average=list(average),
        updates=state.updates + 1,
    )


def compiled_step(model: keras.Model, with_warp: bool) -> Callable[..., State]:
    """A compiled (state, images, parameters, labels) -> state that reuses the state.

    Args:
      model: its weights are not changed: the state holds them.
      with_warp: whether the images still have to be warped.
    """

    def loss_of(trainable, fixed, images, labels):
        logits, fixed = model.stateless_call(trainable, fixed, images, training=True)
        logits = logits[:, 0].astype("float32")
        smoothed = labels * (1 - step_settings.SMOOTHING) + step_settings.SMOOTHING / 2
        # max(x, 0) - x y + log(1 + exp(-|x|)), finite for every logit.
        losses = jnp.maximum(logits, 0) - logits * smoothed
        losses += jnp.log1p(jnp.exp(-jnp.abs(logits)))
        return jnp.mean(losses), fixed

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, images, parameters, labels):
        if with_warp:
            images = warp.warp(images, parameters, model.input_shape[1])
        (loss, fixed), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            state.trainable, state.fixed, images, labels
        )
        state = update(state, gradients, step_settings.LEARNING_RATE)
        return state._replace(fixed=fixed, loss=loss)

    return step


def device() -> dict[str, str]:
    first = jax.devices()[0]
    on_gpu = first.platform == "gpu"
    fast = on_gpu and float(first.compute_capability) >= _BFLOAT16_GPU
    return {
        "precision": "bfloat16" if fast else "float32",
        "gpu": first.device_kind if on_gpu else "",
    }


def prepare(task: dict[str, Any]) -> turns.Work:
    """Builds the case `task["case"]`: ours, warp, input or keras."""
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_dtype_policy(_POLICIES[task["precision"]])
    first = jax.devices()[0]
    multiply, operations = _matmul(task["precision"], first.platform == "gpu")
    batches = step_input_jax.Reader(task) if task["case"] == INPUT else None
    build = _keras if task["case"] == "keras" else _ours
    model, step, wait = build(task, batches)

    def device_bytes() -> int:
        return (first.memory_stats() or {}).get("peak_bytes_in_use", 0)

    return turns.Work(
        task["batch_size"],
        step,
        wait,
        multiply,
        operations,
        step_worker.facts(model),
        device_bytes,
        waited=lambda: batches.waited if batches else 0.0,
    )


def _ours(task: dict[str, Any], batches: Iterator[list[jax.Array]] | None) -> tuple:
    model = models.build(task["model"], task["size"], dropout=step_settings.DROPOUT)
    with_warp = task["case"] != OURS
    step = compiled_step(model, with_warp)
    if batches is None:
        drawn = step_worker.draw(task["size"], task["batch_size"])
        images = drawn.images if with_warp else drawn.warped
        batch = [jnp.asarray(part) for part in (images, drawn.parameters, drawn.labels)]
        batches = itertools.repeat(batch)
    state = initial_state(
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )
    in_flight = collections.deque()

    def take():
        nonlocal state
        state = step(state, *next(batches))
        in_flight.append(jnp.copy(state.loss))  # the next step overwrites the state
        if len(in_flight) > _IN_FLIGHT:
            in_flight.popleft().block_until_ready()

    return model, take, lambda: state.loss.block_until_ready()


def _keras(task: dict[str, Any], _batches: None) -> tuple:
    model = step_worker.compiled_model(task["model"], task["size"])
    drawn = step_worker.draw(task["size"], task["batch_size"])
    images, labels = jnp.asarray(drawn.warped), jnp.asarray(drawn.labels[:, None])
    # It returns the loss as a number, and so waits for every step.
    return model, lambda: model.train_on_batch(images, labels), lambda: None


def _matmul(precision: str, gpu: bool) -> tuple[Callable[[], Any], float]:
    side, products = step_settings.GPU_MATMUL if gpu else step_settings.CPU_MATMUL

    @jax.jit
    def multiply(first, second):
        for _ in range(products):
            first = first @ second
        return first

    def make():
        first, second = (
            jnp.asarray(matrix, precision) for matrix in step_worker.matrices(side)
        )
        return lambda: multiply(first, second).block_until_ready()

    return turns.made_once(make), 2.0 * side**3 * products


if __name__ == "__main__":
    with wakeup.Watch():
        turns.serve(prepare, device)
