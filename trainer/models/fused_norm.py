"""Batch normalisation in one kernel, for training under TensorFlow only.

Keras 3 composes batch normalisation of several operations; TensorFlow's
FusedBatchNormV3 does it in one. What is saved is the model of stock layers, whose
variables have the same names.
"""

from typing import Any

from keras import layers


class FusedBatchNormalization(layers.BatchNormalization):
    """Keras' layer with a fused training step; inference is Keras' own.

    A replica that was given no example leaves the moving statistics as they are, and
    has gradients of zero.
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


def applies(layer: layers.Layer) -> bool:
    """Whether the kernel does what a built layer does: images, channels last."""
    if type(layer) is not layers.BatchNormalization:
        return False
    is_image = len(layer.input.shape) == 4 and layer.axis in (-1, 3)
    return is_image and not layer.renorm and not layer.synchronized
