"""The shape of the project: arrows one way, one home for keys, flags and options."""

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from beam_pipelines.config import BuildConfig
from beam_pipelines.convert import ConvertConfig
from beam_pipelines.synthesize import SynthesizeConfig
from beam_pipelines.verify import VerifyConfig
from beam_pipelines.writing import options as beam_options
from benchmarks.build import BuildBenchmarkConfig
from benchmarks.gpu import GpuConfig
from benchmarks.input import InputBenchmarkConfig
from benchmarks.planner import PlannerConfig
from benchmarks.publish import PublishConfig
from benchmarks.stages.config import StagesConfig
from benchmarks.step import StepConfig
from benchmarks.warp import WarpBenchmarkConfig
from schemas import example
from support import command
from trainer.compare import CompareConfig
from trainer.config import TrainConfig
from trainer.demo.__main__ import DemoConfig
from trainer.evaluate import EvaluateConfig
from trainer.export import ExportConfig
from trainer.model_card import ModelCardConfig
from trainer.predict import PredictConfig
from trainer.report import ReportConfig
from trainer.subgroups import SubgroupsConfig
from trainer.sweep import SweepConfig

ROOT = Path(__file__).parent.parent
PACKAGES = ("schemas", "support", "beam_pipelines", "trainer", "benchmarks")

#: Package -> what it may import of ours and, of the large libraries, of others'.
MAY_IMPORT = {
    "schemas": {"schemas", "support"},
    "support": {"support"},
    "beam_pipelines": {"beam_pipelines", "schemas", "support", "apache_beam"},
    "trainer": {"trainer", "schemas", "support", "tensorflow", "keras", "sklearn"},
    "benchmarks": {*PACKAGES, "tensorflow", "keras", "sklearn", "apache_beam"},
}
WATCHED = {*PACKAGES, "tensorflow", "keras", "sklearn", "apache_beam"}
#: Of each package: sub-package -> what else of its package it may import, anywhere in
#: a file. Modules next to the sub-packages are commands, except those named here.
ARROWS = {
    "beam_pipelines": {
        "datasets": set(),
        "config": {"datasets"},
        "sources": {"config", "datasets"},
        "planning": {"config", "sources"},
        "reporting": {"planning", "sources"},
        "writing": {"config", "sources", "planning", "reporting"},
        "sample": set(),
        "shard_checks": set(),
    },
    "trainer": {
        "quiet": set(),
        "npz": set(),
        "architectures": set(),
        "config": {"architectures"},
        "augmentation": {"config"},
        "runs": {"config"},
        "data": {"config", "runs"},
        "models": {"architectures", "npz", "runs"},
        "evaluation": {"architectures", "config", "runs"},
        "loop": {
            *("augmentation", "config", "npz", "runs"),
            *("data", "models", "evaluation"),
        },
        "reporting": {"augmentation", "data", "models", "runs", "evaluation"},
        "inference": {"augmentation", "models", "runs", "evaluation"},
        "finish": {"data", "models", "runs", "evaluation", "loop", "reporting"},
    },
}
CONFIGS = (
    BuildConfig,
    ConvertConfig,
    SynthesizeConfig,
    VerifyConfig,
    TrainConfig,
    EvaluateConfig,
    ModelCardConfig,
    PredictConfig,
    DemoConfig,
    ExportConfig,
    ReportConfig,
    CompareConfig,
    SweepConfig,
    SubgroupsConfig,
    StagesConfig,
    WarpBenchmarkConfig,
    StepConfig,
    GpuConfig,
    BuildBenchmarkConfig,
    PlannerConfig,
    InputBenchmarkConfig,
    PublishConfig,
)


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def top_level_imports(tree):
    """Names of the modules that a file imports when it is itself imported."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package):
    for path in sources(package):
        tree = ast.parse(path.read_text())
        imported = {name.split(".")[0] for name in top_level_imports(tree)}
        wrong = (imported & WATCHED) - MAY_IMPORT[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize(
    "name",
    [
        "augmentation",
        "models/__init__",
        "models/applications",
        "models/googlenet",
        "models/weights",
    ],
)
def test_what_must_run_on_jax_does_not_import_tensorflow(name):
    tree = ast.parse((ROOT / f"trainer/{name}.py").read_text())
    assert "tensorflow" not in set(top_level_imports(tree))


@pytest.mark.parametrize(
    "module",
    [
        "beam_pipelines.build",
        "beam_pipelines.verify",
        "beam_pipelines.synthesize",
        "beam_pipelines.writing.pipeline",
        "trainer.config",
        "trainer.model_card",
        "trainer.compare",
        "trainer.report",
        "trainer.subgroups",
    ],
)
def test_module_starts_without_tensorflow(module):
    program = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; "
        f"import {module}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def imported_parts(path, package):
    """Sub-packages and modules of its own package that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                owner, part = f"{node.module}.{alias.name}".split(".")[:2]
                if owner == package and (ROOT / package / part).is_dir():
                    yield part
                elif owner == package and (ROOT / package / f"{part}.py").is_file():
                    yield part


@pytest.mark.parametrize("package", ARROWS)
def test_sub_packages_import_one_way_and_no_command(package):
    for path in sources(package):
        part = path.relative_to(ROOT / package).with_suffix("").parts[0]
        if part in ARROWS[package]:
            wrong = set(imported_parts(path, package)) - ARROWS[package][part] - {part}
            assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_directories_have_few_modules():
    for package in PACKAGES:
        for folder in {path.parent for path in sources(package)}:
            assert len(list(folder.glob("*.py"))) <= 16, folder


def test_flags_are_read_in_mains_only():
    for package in PACKAGES:
        for path in sources(package):
            text = path.read_text()
            reads = re.search(r"from absl import|flags\.FLAGS|FlagValues\(", text)
            is_main = '__name__ == "__main__"' in text
            home = path.relative_to(ROOT).as_posix() == "support/command.py"
            assert not reads or is_main or home, path


def test_feature_keys_are_spelt_in_schemas_only():
    keys = "|".join(feature.key for feature in example.FEATURES)
    # A key used as a record's: subscripted, or asked for with get.
    pattern = re.compile(rf"""record(s)?(\[|\.get\()["']({keys})["']""")
    for package in PACKAGES[1:]:
        for path in sources(package):
            assert not pattern.search(path.read_text()), path


def test_asserts_are_for_tests():
    for package in PACKAGES:
        for path in sources(package):
            nodes = ast.walk(ast.parse(path.read_text()))
            assert not any(isinstance(node, ast.Assert) for node in nodes), path


@pytest.mark.parametrize("config", CONFIGS)
def test_every_option_is_read_somewhere(config):
    package = config.__module__.split(".")[0]
    text = "\n".join(path.read_text() for path in sources(package))
    for field in dataclasses.fields(config):
        uses = re.findall(rf"\b(?:config|self|strengths)\.{field.name}\b", text)
        assert uses, f"nothing reads --{field.name}"
        assert field.metadata["help"].endswith((".", ";")), field.name


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.flags")))
def test_flagfiles_begin_with_their_command_and_parse(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = path.read_text().splitlines()
    # absl knows no comment behind a value.
    assert not [line for line in lines if line.startswith("--") and "#" in line]
    first = re.match(r"# python -m (\S+) --flagfile=configs/", lines[0])
    assert path.name in lines[0]
    config = {"trainer.main": TrainConfig, "beam_pipelines.build": BuildConfig}[
        first[1]
    ]
    values = flags.FlagValues()
    command.define_flags(config, values)
    words = command.parse(["main", f"--flagfile={path}"], values, known_only=True)
    parsed = command.from_flags(config, values)
    if config is TrainConfig:
        assert not words
        assert path.stem in (parsed.model, "quick", "gpu", "notebook")
    else:
        beam_options.parse(words, [])


def test_no_file_of_the_data_is_tracked():
    done = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    tracked = done.stdout.split()
    wrong = re.compile(r"\.(jpe?g|tfrecord.*|npz|keras|h5)$")
    assert not [name for name in tracked if wrong.search(name)]
