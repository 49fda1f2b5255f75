"""Batch normalisation in one kernel, for training under TensorFlow only.

Keras 3 composes batch normalisation of several operations; TensorFlow's
FusedBatchNormV3 does it in one. What is saved is the model of stock layers, whose
variables have the same names.
"""

from keras import layers


class FusedBatchNormalization(layers.BatchNormalization):
    """Keras' layer with a fused training step; inference is Keras' own."""

    def call(self, inputs, training=None, mask=None):
        if not training or not self.trainable or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        # The kernel keeps scale and statistics in float32, whatever the inputs are.
        gamma = self.gamma if self.scale else tf.ones([inputs.shape[-1]])
        beta = self.beta if self.center else tf.zeros([inputs.shape[-1]])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, self.compute_dtype),
            scale=tf.cast(gamma, tf.float32),
            offset=tf.cast(beta, tf.float32),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel returns the unbiased variance; Keras averages the biased one.
        count = tf.cast(tf.size(inputs) / inputs.shape[-1], tf.float32)
        variance *= (count - 1) / count
        for moving, batch in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs
