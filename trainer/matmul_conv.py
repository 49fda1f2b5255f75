"""Convolutions whose filter gradient is matrix products, for training on AVX2 CPUs.

oneDNN has no good kernel for the filter gradient of channels-last convolutions on
processors without AVX-512. For a k×k convolution that gradient is k² matrix products,
one for each position in the window, of the input moved there and the gradient of the
output; they ran two to three times as fast.
"""

from typing import Any

from keras import layers

#: Below this many input channels the products are too small to gain anything.
_LEAST_CHANNELS = 32
_KERNELS = ((1, 1), (3, 3))


class MatmulGradientConv2D(layers.Conv2D):
    """Keras' layer, with stride 1 and padding "same"; only its gradient is computed
    in another way."""

    def convolution_op(self, inputs, kernel):
        import keras
        import tensorflow as tf

        kernel = keras.ops.convert_to_tensor(kernel)
        strides = [1, 1, 1, 1]

        @tf.custom_gradient
        def convolve(inputs, kernel):
            def gradients(upstream):
                by_input = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(inputs),
                    filter=kernel,
                    out_backprop=upstream,
                    strides=strides,
                    padding="SAME",
                )
                return by_input, _filter_gradient(inputs, upstream, kernel.shape)

            return tf.nn.conv2d(inputs, kernel, strides, "SAME"), gradients

        return convolve(inputs, kernel)


def applies(layer: layers.Layer) -> bool:
    """Whether a built layer is a convolution that gains by it."""
    return (
        type(layer) is layers.Conv2D
        and layer.kernel_size in _KERNELS
        and layer.strides == (1, 1)
        and layer.dilation_rate == (1, 1)
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and (layer.padding == "same" or layer.kernel_size == (1, 1))
        and layer.kernel.shape[2] >= _LEAST_CHANNELS
    )


def _filter_gradient(inputs: Any, upstream: Any, shape: Any) -> Any:
    """The gradient of a convolution with stride 1 by its filter.

    Args:
      inputs: (batch, height, width, channels).
      upstream: (batch, height, width, filters), the gradient of the output.
      shape: of the filter: (rows, columns, channels, filters), rows and columns odd.

    Returns:
      A tensor of that shape.
    """
    import tensorflow as tf

    rows, columns, channels, filters = shape
    height, width = inputs.shape[1:3]
    margins = [[0, 0], [rows // 2] * 2, [columns // 2] * 2, [0, 0]]
    padded = tf.pad(inputs, margins) if (rows, columns) != (1, 1) else inputs
    upstream = tf.reshape(upstream, [-1, filters])
    products = [
        tf.matmul(
            tf.reshape(
                padded[:, row : row + height, column : column + width], [-1, channels]
            ),
            upstream,
            transpose_a=True,
        )
        for row in range(rows)
        for column in range(columns)
    ]
    return tf.reshape(tf.stack(products), shape)
