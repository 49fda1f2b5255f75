"""Imports TensorFlow and Keras for a program, which imports this first.

Without TensorFlow's start-up lines: TensorFlow 2.21 writes them to the standard error
stream before any log level applies. They are shown if the import fails. And without the
settings of a user's shell and `keras.json` that change what is computed, or with which
the libraries do not start.
"""

import os
import sys
import tempfile

from support import streams
from support.errors import ExitCode

#: Environment variables, and what they are for our programs; None removes one. Not
#: here: what only moves time, memory and logs, and TF_DETERMINISTIC_OPS, which chooses
#: among equally good kernels.
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_MAX_EPOCHS": None,
    "KERAS_MAX_STEPS_PER_EPOCH": None,
    "TF_CONFIG": None,
    "TF_ENABLED_DEVICE_TYPES": None,
    "TF_USE_LEGACY_KERAS": None,
    "TF_XLA_FLAGS": None,
    "TF_SET_ONEDNN_FPMATH_MODE": None,
    "ONEDNN_DEFAULT_FPMATH_MODE": None,
    "DNNL_DEFAULT_FPMATH_MODE": None,
    "TF_ENABLE_ZENDNN_OPTS": None,
    "TF_ENABLE_MAXPOOL_NANPROP": None,
    "TF_ENABLE_WINOGRAD_NONFUSED": None,
    "TF_USE_DEEP_CONV2D": None,
    "TF_CONV2D_USE_FP16_ACCUMULATE": None,
    "TF_FP16_CONV_USE_FP32_COMPUTE": None,
    "TF_FP16_MATMUL_USE_FP32_COMPUTE": None,
    "NVIDIA_TF32_OVERRIDE": None,
    "XLA_FLAGS": " ".join(
        word
        for word in os.environ.get("XLA_FLAGS", "").split()
        if word.startswith("--xla_gpu_cuda_data_dir=")  # where CUDA is
    )
    or None,
}


def _set_environment() -> None:
    for name, value in ENVIRONMENT.items():
        given = os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
        if given and given != value:
            print(f"note: {name}={given} is not used here.", file=sys.stderr)


def _import_libraries() -> None:
    """Imports them, with what they write kept aside."""
    with tempfile.TemporaryFile() as lines:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(lines.fileno(), 2)
        try:
            import keras
            import tensorflow  # noqa: F401
        except BaseException:
            lines.seek(0)
            os.write(stderr, lines.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    # What keras.json says; its backend gives way to the variable.
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")


streams.open_closed()
if "keras" not in sys.modules:  # else they are the importing program's
    _set_environment()
    try:
        _import_libraries()
    except (AttributeError, PermissionError, ValueError) as error:
        home = os.environ.get("KERAS_HOME", os.path.expanduser("~/.keras"))
        print(
            f"error: Keras does not start with the settings in {home}: {error}\n"
            "       Correct or remove keras.json there, or set KERAS_HOME elsewhere.",
            file=sys.stderr,
        )
        raise SystemExit(ExitCode.USAGE) from error
