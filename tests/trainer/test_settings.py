"""Settings that a user's shell and home have for the libraries reach no program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import quiet

ROOT = Path(__file__).parents[2]
FIGURE = """
import hashlib
from support import figures
print(hashlib.sha256(figures.png([lambda axes: axes.plot([1, 2])])).hexdigest())
"""


def python(*words, cwd=None, **environment):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, *words]
    return subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True
    )


def keras_home(folder, **settings):
    (folder / "keras.json").write_text(json.dumps(settings))
    return str(folder)


def test_numbers_do_not_follow_variables_and_keras_json(tmp_path):
    settings = {"floatx": "float64", "image_data_format": "channels_first"}
    home = keras_home(tmp_path, epsilon=0.5, backend="jax", **settings)
    program = "; ".join(
        [
            "import trainer.quiet, os, keras",
            "print(*(os.environ.get(name) for name in trainer.quiet.ENVIRONMENT))",
            "print(keras.backend.backend(), keras.config.floatx())",
            "print(keras.config.dtype_policy().name, keras.config.epsilon())",
            "print(keras.config.image_data_format())",
        ]
    )
    given = dict.fromkeys(quiet.ENVIRONMENT, "bad")
    done = python("-c", program, KERAS_HOME=home, **given)
    assert done.stdout.splitlines() == [
        " ".join(map(str, quiet.ENVIRONMENT.values())),
        "tensorflow float32",
        "float32 1e-07",
        "channels_last",
    ]
    notes = [f"note: {name}=bad is not used here." for name in given]
    assert done.stderr.splitlines() == notes


def test_settings_that_keras_refuses_are_named(tmp_path):
    home = keras_home(tmp_path, floatx="float128")
    done = python("-m", "trainer.main", "--help", KERAS_HOME=home)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert f"settings in {home}: Invalid `floatx`" in done.stderr


@pytest.mark.parametrize("module", ["trainer.report", "beam_pipelines.build"])
def test_programs_start_whatever_matplotlib_is_told(module, tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"\xff")
    backend = "module://matplotlib_inline.nowhere"
    settings = {"MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": backend}
    done = python("-m", module, "--help", **settings)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["trainer.report", "beam_pipelines.verify"])
def test_unreadable_matplotlibrc_of_the_working_directory_is_named(module, tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"\xff")
    done = python("-m", module, "--help", cwd=tmp_path)
    assert done.returncode == 2
    error, remedy = done.stderr.splitlines()
    assert error.startswith("error: matplotlibrc in the working directory cannot be")


def test_figures_follow_no_matplotlibrc_and_no_style_files(tmp_path):
    (tmp_path / "matplotlibrc").write_text("savefig.facecolor: blue\nfont.size: 30\n")
    (tmp_path / "stylelib").mkdir()
    (tmp_path / "stylelib/broken.mplstyle").write_bytes(b"\xff")
    home = {"MATPLOTLIBRC": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    plain, styled = python("-c", FIGURE), python("-c", FIGURE, **home)
    assert plain.stdout == styled.stdout and plain.stdout
