"""Imports TensorFlow without its start-up lines; programs import this first.

TensorFlow 2.21 writes them to the standard error stream before any log level applies.
What it writes is kept and shown if the import fails.
"""

import os
import sys
import tempfile

from support import streams

streams.open_closed()
with tempfile.TemporaryFile() as lines:
    sys.stderr.flush()
    stderr = os.dup(2)
    os.dup2(lines.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    except BaseException:
        lines.seek(0)
        os.write(stderr, lines.read())
        raise
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
