"""Standard streams that cannot fail a program: closed, full, or not in UTF-8."""

import errno
import io
import os
import sys


class _Stream(io.FileIO):
    """A stream of the process; what cannot be written is dropped and remembered."""

    error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:  # the reader went away, as `| head` does
            raise
        except OSError as error:
            self.error = error
            return len(data)


def open_closed() -> None:
    """Leads closed streams to nowhere, else the next opened file would get their place.

    Call it before anything keeps a file open.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))


def guard() -> None:
    """Makes `print` succeed whatever becomes of the stream, and in any encoding."""
    open_closed()
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        stream.flush()
        raw = _Stream(number, "w", closefd=False)
        wrapped = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=number == 2 or raw.isatty(),
        )
        setattr(sys, name, wrapped)


def failure() -> OSError | None:
    """Why some of the standard output was lost; None if all of it was written."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _Stream) else None
