"""Flags from a dataclass, errors in two lines, exit codes."""

import dataclasses
import signal
import subprocess
import sys

import pytest

from support import command
from support.errors import ExitCode, UserError, did_you_mean, usage_error


@dataclasses.dataclass(frozen=True)
class Config:
    epochs: int = command.option(3, "Epochs.")
    rate: float = command.option(0.5, "Rate.")
    name: str = command.option("", "Name.")
    quick: bool = command.option(False, "Quick.")
    parts: tuple[float, ...] = command.option((0.6, 0.4), "Parts.")

    def __post_init__(self):
        if self.epochs < 1:
            raise usage_error(
                f"--epochs={self.epochs} is below 1.", "Choose 1 or more."
            )


def read(*words: str) -> Config:
    return command.parse_config(Config, ["program", *words])


def test_flags_become_the_configuration():
    assert read() == Config()
    assert read("--epochs=5", "--quick", "--parts=0.5,0.5", "--rate", "2") == Config(
        epochs=5, quick=True, parts=(0.5, 0.5), rate=2.0
    )


def test_the_text_of_a_configuration_reads_back(tmp_path):
    config = Config(epochs=7, rate=1e-3, name="a b", quick=True, parts=(0.1, 0.9))
    path = tmp_path / "flags.txt"
    path.write_text(command.flags_text(config))
    assert read(f"--flagfile={path}") == config


@pytest.mark.parametrize("spelling", ["--flagfile={}", "--flagfile {}", "-flagfile={}"])
def test_the_command_line_wins_over_a_flagfile_wherever_it_stands(tmp_path, spelling):
    base, path = tmp_path / "base.flags", tmp_path / "own.flags"
    base.write_text("--rate=4\n--name=base\n")
    path.write_text(f"# a comment\n--flagfile={base}\n--epochs=9\n--name=own\n")
    words = spelling.format(path).split()
    assert read("--epochs=2", *words) == Config(epochs=2, rate=4.0, name="own")
    assert read(*words, "--epochs=2") == Config(epochs=2, rate=4.0, name="own")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--epoch=3", "There is no flag --epoch. Did you mean --epochs?"),
        ("--zebra", "There is no flag --zebra. --help lists the flags."),
        ("--epochs=three", "epochs"),
        ("--epochs=0", "--epochs=0 is below 1."),
        ("--parts=a,b", "is not a list of floats"),
        ("extra", "'extra' is not a flag."),
        ("--flagfile=nowhere", "--flagfile=nowhere cannot be read: No such file"),
        (f"--flagfile={sys.executable}", "A flagfile is no text in UTF-8"),
        ("--name=a\nb", ": a line break"),
        ("--name=a ", "or a blank at an end"),
        ("--name=a\0", "a NUL or"),
        ("--name=\udcff", "'--name=\\udcff' is not in UTF-8."),
    ],
)
def test_wrong_words_are_usage_errors(word, message):
    with pytest.raises(UserError) as raised:
        read(word)
    assert message in str(raised.value)
    assert raised.value.exit_code == ExitCode.USAGE
    assert "\n" not in str(raised.value)


def _fail(error):
    def main(_argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("Cause.", "Remedy.", ExitCode.INTEGRITY), ExitCode.INTEGRITY),
        (UserError("a\nb \x1b[2J.", "c\rd", ExitCode.USAGE), ExitCode.USAGE),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (command.Stopped(signal.SIGINT), ExitCode.INTERRUPTED),
        (command.Stopped(signal.SIGTERM), ExitCode.STOPPED),
        (ZeroDivisionError("oh"), ExitCode.BUG),
        (PermissionError(13, "Permission denied", "x"), ExitCode.OUTPUT),
        (OSError(24, "Too many open files"), ExitCode.OUTPUT),
        (OSError("no number"), ExitCode.BUG),
    ],
)
def test_errors_end_in_two_lines_and_their_code(error, code, capsys, monkeypatch):
    monkeypatch.delenv(command.TRACEBACK_VARIABLE, raising=False)
    assert command.guard(_fail(error), ["program"]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.isprintable() for line in lines)
    assert lines[0].startswith("error: ")


@pytest.mark.parametrize(
    ("then", "code"), [("raise ImportError('half')", 130), ("print('done')", 0)]
)
def test_signal_decides_the_exit_code_whatever_a_library_makes_of_it(then, code):
    program = f"""if True:
        from support import command

        def main(_argv):
            try:
                exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
            except BaseException:
                {then}

        command.run(main)"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == code
    assert ("Stopped by Ctrl-C" in done.stderr) == bool(code)
    assert len(done.stderr.splitlines()) == (2 if code else 0)


def test_a_traceback_is_there_for_the_asking(capsys, monkeypatch):
    monkeypatch.setenv(command.TRACEBACK_VARIABLE, "1")
    assert command.guard(_fail(ZeroDivisionError("oh")), ["program"]) == ExitCode.BUG
    assert "Traceback" in capsys.readouterr().err


def test_success_is_zero():
    assert command.guard(lambda argv: None, ["program"]) == ExitCode.OK


def test_did_you_mean():
    assert did_you_mean("smilling", ["Smiling", "Male"]) == "Did you mean Smiling?"
    assert did_you_mean("x", ["a", "b"]) == "Choose one of: a, b."
