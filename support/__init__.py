"""What both programs need and nothing more. Imports nothing of this project."""

import os
import sys

#: matplotlib reads these when it is imported: a backend that is not installed here, or
#: a settings file with errors, would stop it. What is drawn depends on neither.
_MATPLOTLIB = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}


def _check_matplotlibrc() -> None:
    """Ends the program (exit 2) if the working directory's would stop matplotlib.

    It comes before the one that MATPLOTLIBRC names.
    """
    try:
        if os.path.isfile("matplotlibrc"):
            with open("matplotlibrc", encoding="utf-8") as file:
                file.read()
    except (OSError, UnicodeDecodeError) as error:
        print(
            f"error: matplotlibrc in the working directory cannot be read: {error}\n"
            "       Correct it, or start the program in another directory.",
            file=sys.stderr,
        )
        raise SystemExit(2) from error


_program = getattr(sys.modules["__main__"], "__spec__", None)
_OURS = ("beam_pipelines", "trainer", "benchmarks")
if _program and _program.name.partition(".")[0] in _OURS:
    os.environ |= _MATPLOTLIB  # elsewhere they are the importing program's
    _check_matplotlibrc()
