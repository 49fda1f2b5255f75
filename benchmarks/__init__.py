"""How fast each stage runs, measured one way and written one way."""

import os

# Several programs share a GPU: none may take nearly all of its memory when it starts.
# JAX and TensorFlow read these variables when they meet the GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
