"""What runs on the device: one train step and one evaluation step, on any strategy.

Mixup: Zhang, Cissé, Dauphin and Lopez-Paz, "mixup: Beyond Empirical Risk
Minimization", ICLR 2018; each image with the one before it in the batch, by a fraction
of its own.
"""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from trainer import augmentation
from trainer.augmentation import Augmenter
from trainer.data.input_pipeline import ATTRIBUTES, IMAGES, INDEX, LABELS, STEP
from trainer.loop.optimizer import Optimizer
from trainer.models import googlenet, training_model


@dataclasses.dataclass(frozen=True)
class Objective:
    """Binary cross-entropy: smoothed labels, a weight per class, the global batch.

    Attributes:
      global_batch: examples per step over all replicas.
      label_smoothing: fraction of each label spread over both.
      class_weights: of labels 0 and 1.
      auxiliary: numbers of the auxiliary attributes, which are trained too.
      auxiliary_weight: of their mean loss; the label's has 1.
      mixup: alpha of mixup, 0 for none.
    """

    global_batch: int
    label_smoothing: float
    class_weights: tuple[float, float]
    auxiliary: tuple[int, ...] = ()
    auxiliary_weight: float = 0.0
    mixup: float = 0.0

    def losses(self, labels: Any, logits: Any) -> Any:
        """Per-example losses, (batch,) float32, of labels 0 or 1 and logits."""
        losses = self._cross_entropy(labels, logits)
        return losses * tf.where(labels > 0.5, *reversed(self.class_weights))

    def auxiliary_losses(self, attributes: Any, logits: Any) -> Any:
        """Per-example losses, (batch,) float32, of the auxiliary attributes, weighted.

        Args:
          attributes: (batch, 40) float32 0 or 1.
          logits: (batch, len(auxiliary)) float32.
        """
        labels = tf.gather(attributes, self.auxiliary, axis=1)
        losses = self._cross_entropy(labels, logits)
        return self.auxiliary_weight * tf.reduce_mean(losses, axis=1)

    def _cross_entropy(self, labels, logits):
        smoothed = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        return tf.nn.sigmoid_cross_entropy_with_logits(smoothed, logits)


def mixup_fractions(count: Any, alpha: float, seed: Any) -> Any:
    """Draws from Beta(alpha, alpha), (count,) float32, the larger part: 1/2..1."""
    # Two gamma variates make one of the beta distribution; both can round to 0.
    variates = tf.random.stateless_gamma([2, count], seed, alpha) + 1e-12
    return tf.reduce_max(variates, axis=0) / tf.reduce_sum(variates, axis=0)


class TrainStep:
    """Forward, backward, all-reduce, clip, update; sums loss and correct answers.

    Attributes:
      sums: float64 (3,): the label's loss, examples classified correctly and examples
        seen, each since `reset`.
    """

    def __init__(
        self,
        model: keras.Model,
        augment: Augmenter,
        optimizer: Optimizer,
        objective: Objective,
        xla: bool,
        strategy: tf.distribute.Strategy,
        seed: int = 0,
    ):
        self._model = model
        self._augment = augment
        self._seed = seed
        self._optimizer = optimizer
        self._objective = objective
        self._strategy = strategy
        self._trainable = [variable.value for variable in model.trainable_variables]
        self._gradients = tf.function(self._loss_and_gradients, jit_compile=xla)
        self.sums = tf.Variable(tf.zeros([3], tf.float64), trainable=False)

    def reset(self) -> None:
        self.sums.assign(tf.zeros_like(self.sums))

    @tf.function
    def __call__(self, batch: dict[str, Any]) -> None:
        """Takes one step on a batch, a dict of `train_dataset`."""
        sums, gradients, finite = self._strategy.run(self._replica_step, (batch,))
        self.sums.assign_add(self._strategy.reduce("SUM", sums, axis=None))
        finite = self._strategy.experimental_local_results(finite)[0]
        self._optimizer.apply(gradients, finite)

    def _replica_step(self, batch):
        context = tf.distribute.get_replica_context()
        if batch[LABELS].shape[0] == 0:
            # oneDNN gives the convolution of no images the shape of its input.
            sums = tf.zeros([3], tf.float64)
            gradients = [tf.zeros_like(variable) for variable in self._trainable]
        else:
            sums, gradients = self._compute(batch, context)
        if context.num_replicas_in_sync > 1:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        return sums, *self._optimizer.finish(gradients)

    def _compute(self, batch, context):
        step, replica = batch[STEP], context.replica_id_in_sync_group
        images = self._augment(batch[IMAGES], step, batch[INDEX], replica)
        count = tf.shape(images)[0]
        fraction = tf.ones([count])
        if self._objective.mixup:
            replicas = context.num_replicas_in_sync
            number = step * replicas + tf.cast(replica, tf.int64)
            seed = tf.stack([tf.constant(self._seed, tf.int64), number])
            fraction = mixup_fractions(count, self._objective.mixup, seed)
        return self._gradients(images, batch[LABELS], batch[ATTRIBUTES], fraction)

    def _loss_and_gradients(self, images, labels, attributes, fraction):
        mixes = bool(self._objective.mixup)
        if mixes:
            pixels = fraction[:, None, None, None]
            images = images * pixels + tf.roll(images, 1, axis=0) * (1 - pixels)

        def mixed(losses, labels, logits):
            """The loss is linear in the label: a mixture's is that of both labels."""
            own = losses(labels, logits)
            if not mixes:
                return own
            rolled = losses(tf.roll(labels, 1, axis=0), logits)
            return fraction * own + (1 - fraction) * rolled

        with tf.GradientTape() as tape:
            outputs = self._model(images, training=True)
            logits = outputs[training_model.LOGIT][:, 0]
            losses = mixed(self._objective.losses, labels, logits)
            total = losses
            if self._objective.auxiliary:
                auxiliary_losses = self._objective.auxiliary_losses
                logits_2 = outputs[training_model.ATTRIBUTES]
                total += mixed(auxiliary_losses, attributes, logits_2)
            for name in filter(outputs.__contains__, googlenet.AUXILIARY):
                auxiliary = mixed(self._objective.losses, labels, outputs[name][:, 0])
                total += googlenet.AUXILIARY_WEIGHT * auxiliary
            # Divided by the global batch, so that replicas' gradients add up.
            loss = tf.reduce_sum(total) / self._objective.global_batch
            scaled = loss * self._optimizer.loss_scale
        gradients = tape.gradient(scaled, self._trainable)
        correct = tf.equal(logits > 0, labels > 0.5)
        totals = [losses, correct, tf.ones_like(losses)]
        sums = [tf.reduce_sum(tf.cast(total, tf.float64)) for total in totals]
        return tf.stack(sums), gradients


class EvaluationStep:
    """Resize and forward pass in inference mode."""

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy):
        self._model = model
        self.strategy = strategy
        self._resize = augmentation.compiled(model.input_shape[1])

    @tf.function
    def __call__(self, images: Any) -> Any:
        """(batch, height, width, 3) uint8, 0..255, to (batch,) float32 logits."""
        logits = self.strategy.run(self._replica_step, (images,))
        return tf.concat(self.strategy.experimental_local_results(logits), axis=0)

    def _replica_step(self, images):
        if images.shape[0] == 0:
            return tf.zeros([0])  # see TrainStep
        parameters = augmentation.identity(tf.shape(images)[0])
        return self._model(self._resize(images, parameters), training=False)[:, 0]


def split_batch(batch: Any, strategy: tf.distribute.Strategy) -> Any:
    """Cuts a tensor, or a dict of them, into one part per replica; copies scalars.

    The first parts are larger by one where the batch does not divide evenly, the last
    ones empty where it has fewer examples than there are replicas.
    """
    count = strategy.num_replicas_in_sync
    if count == 1:
        return batch

    def part(context):
        index = context.replica_id_in_sync_group
        return tf.nest.map_structure(lambda tensor: _part(tensor, index, count), batch)

    return strategy.experimental_distribute_values_from_function(part)


def _part(tensor: Any, index: int, count: int) -> Any:
    if not tensor.shape.rank:
        return tensor
    size, extra = divmod(int(tensor.shape[0]), count)
    start = index * size + min(index, extra)
    return tensor[start : start + size + (index < extra)]
