"""Dropout that differs between replicas, for training under TensorFlow only.

A seed generator's state is mirrored over the replicas, so Keras' layer drops the same
units on all of them. What is saved is the model of stock layers.
"""

from typing import Any

from keras import layers


class ReplicaDropout(layers.Dropout):
    """Keras' layer with the replica's number folded into its seed.

    A single device draws what Keras' layer draws.
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
