"""Errors that a user can act on: one line of cause, one of remedy, an exit code."""

import difflib
import enum
from collections.abc import Iterable


class ExitCode(enum.IntEnum):
    """Exit status of every program of this project."""

    OK = 0
    BUG = 1
    USAGE = 2
    INPUT_DATA = 3
    OUTPUT = 4
    INTEGRITY = 5
    DIVERGED = 6
    OUT_OF_MEMORY = 7
    STOPPED = 75  # stopped and resumable (BSD's EX_TEMPFAIL)
    INTERRUPTED = 130  # Ctrl-C


class UserError(Exception):
    """An error with a cause and a remedy, one line each.

    Attributes:
      cause: what was expected and what was found, with file and line if there is one.
      remedy: what to do next.
      exit_code: the process's exit status.
    """

    def __init__(self, cause: str, remedy: str, exit_code: ExitCode):
        # All three in `args`, so that the error survives pickling between workers.
        super().__init__(cause, remedy, exit_code)
        self.cause = cause
        self.remedy = remedy
        self.exit_code = ExitCode(exit_code)

    def __str__(self) -> str:
        return f"{self.cause} {self.remedy}"


def usage_error(cause: str, remedy: str) -> UserError:
    return UserError(cause, remedy, ExitCode.USAGE)


def input_error(cause: str, remedy: str) -> UserError:
    return UserError(cause, remedy, ExitCode.INPUT_DATA)


def output_error(cause: str, remedy: str) -> UserError:
    return UserError(cause, remedy, ExitCode.OUTPUT)


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A remedy for a misspelt name: the nearest candidates, or all of them."""
    candidates = list(candidates)
    near = nearest(name, candidates)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Choose one of: {', '.join(candidates)}."


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """The one or two candidates that look like `name`, if any do."""
    lowered = {candidate.lower(): candidate for candidate in candidates}
    near = difflib.get_close_matches(name[:99].lower(), lowered, n=2, cutoff=0.6)
    return [lowered[match] for match in near]
