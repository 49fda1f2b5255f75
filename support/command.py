"""The frame of every program: flags from a dataclass, errors in two lines, exit codes.

A program's options are the fields of one frozen dataclass, declared with `option`;
`define_flags` makes a flag of each, `from_flags` the object. So a flag cannot exist
without a field, nor with another default.
"""

import dataclasses
import errno
import os
import signal
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from absl import flags

from support import streams
from support.errors import ExitCode, UserError, nearest, output_error, usage_error
from support.text import printable

Config = TypeVar("Config")

TRACEBACK_VARIABLE = "CELEBA_TRACEBACK"


def option(
    default: Any, help_text: str, within: tuple[float, float] | None = None
) -> Any:
    """A field of a configuration that is also a flag; `within` is its range."""
    metadata = {"help": help_text, "within": within}
    return dataclasses.field(default=default, metadata=metadata)


def outside_ranges(config: Any) -> Iterator[tuple[str, float, float]]:
    """Yields name, lowest and highest value of each option outside its range."""
    for field in dataclasses.fields(config):
        within, value = field.metadata["within"], getattr(config, field.name)
        if within and value is not None and not within[0] <= value <= within[1]:
            yield field.name, *within


def define_flags(config: type, flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one flag per field of `config`, by the field's type.

    Tuples become comma-separated lists; `int | None` and `str | None` may be left out.
    """
    define = {
        bool: flags.DEFINE_boolean,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        tuple: flags.DEFINE_list,
    }
    for field in dataclasses.fields(config):
        default = field.default
        if isinstance(default, tuple):
            default = ",".join(str(value) for value in default)
        define[_base_type(config, field)](
            field.name, default, field.metadata["help"], flag_values=flag_values
        )


def from_flags(
    config: type[Config], flag_values: flags.FlagValues = flags.FLAGS
) -> Config:
    """Builds the configuration from parsed flags; the dataclass checks itself."""
    values = {}
    for field in dataclasses.fields(config):
        value = flag_values[field.name].value
        if isinstance(value, str) and not _is_one_line(value):
            raise usage_error(
                f"--{field.name}={value!r}: a line break, a NUL or a blank at an end.",
                "No flagfile could keep that: rename the file or folder.",
            )
        if isinstance(value, list):
            value = _tuple_of(config, field, value)
        values[field.name] = value
    return config(**values)


def _is_one_line(value: str) -> bool:
    """Tells whether a flagfile gives a value back as it is, and a path may be it."""
    lines = value.strip().splitlines() or [""]
    return lines == [value] and "\0" not in value


def flags_text(config: Any) -> str:
    """The configuration as a flagfile, one flag a line."""
    lines = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None:
            continue
        if isinstance(value, tuple):
            value = ",".join(str(item) for item in value)
        if isinstance(value, bool):
            value = str(value).lower()
        lines.append(f"--{field.name}={value}\n")
    return "".join(lines)


def parse(
    argv: Sequence[str],
    flag_values: flags.FlagValues = flags.FLAGS,
    known_only: bool = False,
) -> list[str]:
    """Parses flags anywhere on the line and returns the other arguments.

    Flagfiles are read first, so that a flag on the command line always wins: absl
    itself lets a flagfile override what stands before it.

    Args:
      argv: the command line, program first.
      flag_values: the flags to parse into.
      known_only: return unknown flags instead of refusing them.

    Raises:
      UserError: unknown flag or bad value (exit 2).
    """
    if {"--help", "-help", "-h"} & set(argv[1:]):
        print(_help(flag_values))
        raise SystemExit(ExitCode.OK)
    for word in argv[1:]:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise usage_error(
                f"{word!a} is not in UTF-8.", "Rename the file or folder."
            ) from None
    files, rest = split_flagfiles(argv[1:])
    flag_values.set_gnu_getopt(True)
    try:
        return flag_values([argv[0], *files, *rest], known_only=known_only)[1:]
    except flags.UnrecognizedFlagError as error:
        near = [f"--{name}" for name in nearest(error.flagname, list(flag_values))]
        raise usage_error(
            f"There is no flag --{error.flagname}.",
            f"Did you mean {' or '.join(near)}?" if near else "--help lists the flags.",
        ) from error
    except flags.CantOpenFlagFileError as error:
        refused = error.__context__
        raise usage_error(
            f"--flagfile={refused.filename} cannot be read: {refused.strerror}.",
            "Check its path.",
        ) from error
    except UnicodeDecodeError as error:
        raise usage_error(
            f"A flagfile is no text in UTF-8: {error}.", "Write one flag a line."
        ) from error
    except flags.Error as error:
        raise usage_error(
            f"{error}.".replace("\n", " ").replace("..", "."), "--help lists the flags."
        ) from error


def split_flagfiles(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates `--flagfile=FILE`, in all its spellings, from the other words."""
    files, rest = [], []
    words = iter(words)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            rest.append(word)
            continue
        if not equals:
            value = next(words, "")
        if not value:
            raise usage_error("--flagfile names no file.", "Write --flagfile=FILE.")
        files.append(f"--flagfile={value}")
    return files, rest


def refuse_words(words: Sequence[str]) -> None:
    """Raises exit 2 if a program that takes only flags was given other words."""
    if words:
        raise usage_error(f"{words[0]!r} is not a flag.", "Flags begin with --.")


def parse_config(config: type[Config], argv: Sequence[str]) -> Config:
    """The configuration of a program that takes only flags.

    Raises:
      UserError: unknown flag, bad value or another word (exit 2).
    """
    values = flags.FlagValues()
    define_flags(config, values)
    refuse_words(parse(argv, values))
    return from_flags(config, values)


def run(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None):
    """Runs a program and exits with its code; errors print two lines, no traceback.

    CELEBA_TRACEBACK=1 adds the traceback. SIGTERM ends like Ctrl-C does, so that
    `finally` clauses run.
    """
    streams.guard()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as for a job in the background
            signal.signal(number, _stop)
    sys.exit(int(guard(main, list(argv or sys.argv))))


def guard(main: Callable[[list[str]], int | None], argv: list[str]) -> int:
    """Calls `main`, prints what it raises, returns the exit code."""
    _arrived.clear()
    try:
        code = int(main(argv) or ExitCode.OK)
        lost = streams.failure()  # a broken pipe shows here, not when Python ends
        if lost:
            raise output_error(
                f"The standard output cannot be written: {lost.strerror}.",
                "The work is done; only lines that it printed are missing.",
            )
        return code
    except (Exception, Stopped, KeyboardInterrupt) as error:
        return _exit_code(error)


def _exit_code(error: BaseException) -> ExitCode:
    """Reports an error and returns the exit code that stands for it."""
    if isinstance(error, KeyboardInterrupt):
        error = Stopped(signal.SIGINT)
    elif _arrived and not is_stop(error):
        # Libraries turn the exception of a signal into their own: NumPy and matplotlib
        # interrupted in an import raise ImportError.
        error = Stopped(_arrived[0])
    if isinstance(error, Stopped):
        error = stopped(error.signal, "Run the same command again to resume.")
    if isinstance(error, UserError):
        _report(error.cause, error.remedy)
        return error.exit_code
    if isinstance(error, BrokenPipeError):  # the reader went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OUTPUT
    if isinstance(error, OSError) and error.errno in errno.errorcode:
        _report(*_refusal(error))
        return ExitCode.OUTPUT
    _report(
        f"This is a bug: {type(error).__name__}: {error}".splitlines()[0],
        f"Please report it with the traceback that {TRACEBACK_VARIABLE}=1 prints.",
    )
    return ExitCode.BUG


def _refusal(error: OSError) -> tuple[str, str]:
    """Cause and remedy of what the operating system refused."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "Too many files are open.", "Raise the limit: ulimit -n 4096."
    if error.filename is None:
        cause = f"The system refused to go on: {error.strerror}."
    else:
        cause = f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}."
    return cause, "Check the path, its permissions and its disk; then run it again."


class Stopped(BaseException):
    """Ctrl-C or SIGTERM arrived.

    Not KeyboardInterrupt: when one ends code that a library runs from a string, CPython
    kills the process at its end although the exception was handled.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


#: Signals that arrived, in their order.
_arrived: list[int] = []


def _stop(number: int, _frame: Any) -> None:
    _arrived.append(number)
    raise Stopped(number)


def stopped(number: int, remedy: str) -> UserError:
    """The error of a program that a signal ended: exit 130 for Ctrl-C, else 75."""
    interrupted = number == signal.SIGINT
    return UserError(
        f"Stopped by {'Ctrl-C' if interrupted else 'SIGTERM'}.",
        remedy,
        ExitCode.INTERRUPTED if interrupted else ExitCode.STOPPED,
    )


def is_stop(error: BaseException) -> bool:
    """Tells whether an error already says that a signal ended the program."""
    codes = (ExitCode.INTERRUPTED, ExitCode.STOPPED)
    return isinstance(error, UserError) and error.exit_code in codes


def _report(cause: str, remedy: str) -> None:
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exc()
    cause, remedy = printable(cause), printable(remedy)
    print(f"error: {cause}\n       {remedy}", file=sys.stderr, flush=True)


def _help(flag_values: flags.FlagValues) -> str:
    """The program's own docstring and its flags with their defaults."""
    program = sys.modules["__main__"].__doc__ or ""
    lines = [program.strip(), "", "Flags:"]
    for module, defined in flag_values.flags_by_module_dict().items():
        if not module.startswith("absl"):
            for flag in defined:
                lines += [
                    f"  --{flag.name}={flag.default_as_str}",
                    f"      {flag.help}",
                ]
    return "\n".join([*lines, "", "Also --flagfile=FILE, a file with one flag a line."])


def _base_type(config: type, field: dataclasses.Field) -> type:
    hint = typing.get_type_hints(config)[field.name]
    arguments = [arg for arg in typing.get_args(hint) if arg is not type(None)]
    if typing.get_origin(hint) is tuple:
        return tuple
    return arguments[0] if arguments else hint


def _tuple_of(config: type, field: dataclasses.Field, words: list[str]) -> tuple:
    item = typing.get_args(typing.get_type_hints(config)[field.name])[0]
    try:
        return tuple(item(word) for word in words)
    except ValueError as error:
        raise usage_error(
            f"--{field.name}={','.join(words)} is not a list of {item.__name__}s.",
            f"Write it like --{field.name}={','.join(map(str, field.default))}.",
        ) from error
