"""AdamW with averaged weights and loss scaling, applied after the all-reduce.

Keras' optimizers clip each replica's gradients before they are summed, and cannot be
called outside a replica on logical devices; this one does neither, and its state is a
flat list of named variables that a checkpoint can hold.

AdamW: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, with
the bias correction of Kingma and Ba, "Adam", ICLR 2015. With no decay it is Adam.
"""

import dataclasses
import math
from typing import Any

import tensorflow as tf

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
FIRST_LOSS_SCALE = 2.0**15
_LOWEST_SCALE = 1.0
#: Steps without overflow after which the loss scale doubles.
GROWTH_STEPS = 2000


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning rate by step: linear warm-up, then a half cosine to zero or constant."""

    peak: float
    warmup_steps: int
    total_steps: int
    cosine: bool

    def __call__(self, step: Any) -> Any:
        """The rate of a step (counted from 0): Python number or tensor."""
        step = tf.cast(step, tf.float32)
        warmup = (step + 1) / max(self.warmup_steps, 1)
        decay = 1.0
        if self.cosine:
            span = max(self.total_steps - self.warmup_steps, 1)
            done = tf.clip_by_value((step - self.warmup_steps) / span, 0.0, 1.0)
            decay = (1 + tf.cos(math.pi * done)) / 2
        return self.peak * tf.minimum(warmup, 1.0) * decay


class Optimizer:
    """Updates variables in cross-replica context; construct it in strategy scope.

    Attributes:
      step: int64, updates asked for so far, skipped ones included.
      loss_scale: float32, 1 unless the precision is float16.
      variables: the state by name, everything that a checkpoint must hold.
    """

    def __init__(
        self,
        trainable: list[tf.Variable],
        schedule: Schedule,
        weight_decay: float,
        clip_norm: float,
        ema: float,
        scale_loss: bool,
    ):
        self._strategy = tf.distribute.get_strategy()
        self._trainable = trainable
        self._schedule = schedule
        self._weight_decay = weight_decay
        self._clip_norm = clip_norm
        self._ema = ema
        self._scale_loss = scale_loss
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._updates = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.loss_scale = tf.Variable(
            FIRST_LOSS_SCALE if scale_loss else 1.0, trainable=False
        )
        self._good_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._failed_step = tf.Variable(0, dtype=tf.int64, trainable=False)
        zeros = [tf.zeros(variable.shape) for variable in trainable]
        self._momentum = [tf.Variable(zero, trainable=False) for zero in zeros]
        self._velocity = [tf.Variable(zero, trainable=False) for zero in zeros]
        self._average = (
            [tf.Variable(variable, trainable=False) for variable in trainable]
            if ema
            else []
        )

    @property
    def variables(self) -> dict[str, tf.Variable]:
        state = {
            "step": self.step,
            "updates": self._updates,
            "loss_scale": self.loss_scale,
            "good_steps": self._good_steps,
        }
        for name, slots in (
            ("momentum", self._momentum),
            ("velocity", self._velocity),
            ("average", self._average),
        ):
            state |= {f"{name}/{index}": slot for index, slot in enumerate(slots)}
        return state

    @property
    def averages(self) -> list[tf.Variable]:
        """The averaged weights, or the weights themselves without averaging."""
        return self._average or self._trainable

    @property
    def failed_step(self) -> int:
        """The first step (from 1) whose gradients no loss scale could save; 0: none.

        No checkpoint keeps it: a run in which a step failed writes none.
        """
        return int(self._failed_step.numpy())

    def learning_rate(self, step: int | None = None) -> tf.Tensor:
        """The rate of the next step, or of one by its number (from 1)."""
        if step is None:
            return self._schedule(self.step)
        return self._schedule(tf.constant(max(step - 1, 0), tf.int64))

    def finish(self, gradients: list[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Unscales and clips gradients that are already summed over replicas.

        Returns:
          The gradients, and whether all of them are finite.
        """
        gradients = [tf.cast(gradient, tf.float32) for gradient in gradients]
        if self._scale_loss:
            gradients = [gradient / self.loss_scale for gradient in gradients]
        norm = tf.linalg.global_norm(gradients)
        if self._clip_norm:
            factor = self._clip_norm / tf.maximum(norm, self._clip_norm)
            gradients = [gradient * factor for gradient in gradients]
        return gradients, tf.math.is_finite(norm)

    def apply(self, gradients: list[Any], finite: tf.Tensor) -> None:
        """Updates the variables, in cross-replica context.

        With loss scaling a step whose gradients overflowed changes nothing but the
        scale, which halves; after `GROWTH_STEPS` good ones it doubles.

        Args:
          gradients: per-replica or plain tensors, equal on all replicas.
          finite: scalar bool.
        """
        failed = tf.logical_not(finite)
        if self._scale_loss:
            failed = tf.logical_and(failed, self.loss_scale <= _LOWEST_SCALE)
        first = tf.logical_and(failed, self._failed_step == 0)
        self._failed_step.assign(tf.where(first, self.step + 1, self._failed_step))
        if self._scale_loss:
            tf.cond(finite, lambda: self._update(gradients), lambda: None)
            self._adjust_scale(finite)
        else:
            self._update(gradients)
        self.step.assign_add(1)

    def _update(self, gradients: list[Any]) -> None:
        updates = tf.cast(self._updates + 1, tf.float32)
        rate = self.learning_rate()
        alpha = rate * tf.sqrt(1 - BETA_2**updates) / (1 - BETA_1**updates)
        # Early in a run the average would be mostly the random start.
        ema = tf.minimum(self._ema, updates / (updates + 10))
        averages = self._average or [None] * len(gradients)
        slots = zip(
            self._trainable,
            gradients,
            self._momentum,
            self._velocity,
            averages,
            strict=True,
        )
        for variable, gradient, *state in slots:
            arguments = (gradient, *state, rate, alpha, ema)
            self._strategy.extended.update(
                variable, self._update_one, args=arguments, group=False
            )
        self._updates.assign_add(1)

    def _update_one(
        self, variable, gradient, momentum, velocity, average, rate, alpha, ema
    ):
        momentum.assign_add((gradient - momentum) * (1 - BETA_1))
        velocity.assign_add((tf.square(gradient) - velocity) * (1 - BETA_2))
        change = alpha * momentum / (tf.sqrt(velocity) + EPSILON)
        # Only kernels decay: biases and normalization parameters are vectors.
        if self._weight_decay and variable.shape.rank > 1:
            change += rate * self._weight_decay * variable
        variable.assign_sub(change)
        if average is not None:
            average.assign_sub((average - variable) * (1 - ema))

    def _adjust_scale(self, finite: tf.Tensor) -> None:
        good = tf.where(finite, self._good_steps + 1, 0)
        grow = good >= GROWTH_STEPS
        factor = tf.where(finite, tf.where(grow, 2.0, 1.0), 0.5)
        self.loss_scale.assign(tf.maximum(self.loss_scale * factor, _LOWEST_SCALE))
        self._good_steps.assign(tf.where(grow, tf.zeros_like(good), good))
