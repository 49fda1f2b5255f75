"""Settings of every framework's train step; imported by all, imports nothing.

The rates hardly depend on them: they are the trainer's own, so that all do the same.
"""

LEARNING_RATE, WEIGHT_DECAY, SMOOTHING, DROPOUT = 1.5e-3, 0.05, 0.1, 0.2

#: The backward pass has two products for each of the forward one: the gradients of the
#: inputs and those of the weights.
TRAIN_PASSES = 3

#: Side of the matrices whose product is the peak, and products per call: a small one
#: does not fill a GPU, and waiting for one takes longer than the product.
CPU_MATMUL, GPU_MATMUL = (2048, 1), (8192, 16)
