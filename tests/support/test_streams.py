"""Programs whose standard streams are closed, full or not in UTF-8."""

import subprocess
import sys

import pytest

PROGRAM = """if True:
    import sys
    from support import command

    def main(argv):
        print("line \\u65e5")
        print("\\udcff", file=sys.stderr)
        open(argv[1], "w").write("the work")

    command.run(main)"""


def run(redirection: str, path) -> tuple[int, str]:
    """Runs the program in a shell; gives its exit code and what it printed."""
    words = ["sh", "-c", f'"$0" -c "$1" "$2" {redirection}']
    done = subprocess.run(
        [*words, sys.executable, PROGRAM, str(path)], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("redirection", "code"),
    [("", 0), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), ("2>/dev/full", 0)],
)
def test_closed_streams_change_neither_work_nor_exit_code(tmp_path, redirection, code):
    assert run(redirection, tmp_path / "work")[0] == code
    assert (tmp_path / "work").read_text() == "the work"


def test_full_output_is_reported_after_the_work(tmp_path):
    code, text = run(">/dev/full", tmp_path / "work")
    assert code == 4
    assert "The standard output cannot be written: No space left on device." in text
    assert (tmp_path / "work").read_text() == "the work"


def test_terminal_in_ascii(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert run("", tmp_path / "work") == (0, "line \\u65e5\n\\udcff\n")
