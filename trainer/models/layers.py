"""Layers of the training model, for TensorFlow only; what is saved has Keras' own.

Their variables have the names of Keras' layers.
"""

from typing import Any

from keras import layers


class FusedBatchNormalization(layers.BatchNormalization):
    """Keras' layer with a fused training step; inference is Keras' own.

    Keras 3 composes batch normalization of several operations; TensorFlow's
    FusedBatchNormV3 does it in one. A replica that was given no example leaves the
    moving statistics as they are, and has gradients of zero.
    """

    def call(self, inputs, training=None, mask=None):
        if not training or not self.trainable or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = inputs.shape[-1]
        count = tf.cast(tf.size(inputs) / channels, tf.float32)
        # The kernel keeps scale and statistics in float32, whatever the inputs are.
        gamma = self.gamma if self.scale else tf.ones([channels])
        beta = self.beta if self.center else tf.zeros([channels])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, self.compute_dtype),
            scale=_without_gradient_of_nothing(tf.cast(gamma, tf.float32), count),
            offset=tf.cast(beta, tf.float32),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel returns the unbiased variance; Keras averages the biased one.
        variance = tf.where(count > 1, variance * (count - 1) / count, 0.0)
        for moving, batch in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            updated = moving * self.momentum + batch * (1 - self.momentum)
            # The kernel's mean of no values is NaN.
            moving.assign(tf.where(count > 0, updated, moving))
        return outputs


def _without_gradient_of_nothing(scale: Any, count: Any) -> Any:
    """The scale, whose gradient is 0 where there are no values: XLA's is NaN."""
    import tensorflow as tf

    @tf.custom_gradient
    def same(scale):
        return scale, lambda upstream: tf.where(count > 0, upstream, 0.0)

    return same(scale)


def can_fuse(layer: layers.Layer) -> bool:
    """Whether the kernel does what a built layer does: images, channels last."""
    if type(layer) is not layers.BatchNormalization:
        return False
    is_image = len(layer.input.shape) == 4 and layer.axis in (-1, 3)
    return is_image and not layer.renorm and not layer.synchronized


class ReplicaDropout(layers.Dropout):
    """Keras' layer with the replica's number folded into its seed.

    A seed generator's state is mirrored over the replicas, so Keras' layer drops the
    same units on all of them. A single device draws what Keras' layer draws.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return inputs
        import tensorflow as tf

        # XLA's random numbers take 32 bits; Keras shortens seeds in this way.
        seed = tf.math.floormod(self.seed_generator.next(), tf.int32.max - 1)
        seed = tf.cast(seed, "int32")
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            replica = context.replica_id_in_sync_group
            seed = tf.random.experimental.stateless_fold_in(seed, replica)
        return tf.nn.experimental.stateless_dropout(
            inputs, self.rate, seed=seed, noise_shape=self.noise_shape
        )
