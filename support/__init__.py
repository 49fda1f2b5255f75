"""What both programs need and nothing more. Imports nothing of this project."""

import os
import sys

#: matplotlib reads these when it is imported: a backend that is not installed here, or
#: a settings file with errors, would stop it. What is drawn depends on neither.
_MATPLOTLIB = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}

_program = getattr(sys.modules["__main__"], "__spec__", None)
_OURS = ("beam_pipelines", "trainer", "benchmarks")
if _program and _program.name.partition(".")[0] in _OURS:
    os.environ |= _MATPLOTLIB  # elsewhere they are the importing program's
