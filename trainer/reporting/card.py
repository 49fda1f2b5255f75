"""The model card of a run: `templates/model_card.md` and its values.

Header: https://huggingface.co/docs/hub/model-cards; contents: Mitchell et al., "Model
Cards for Model Reporting", 2019.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas import celeba
from support import files
from support.errors import input_error
from trainer.evaluation import calibration, loading
from trainer.evaluation.loading import Run, load_run
from trainer.reporting import report, template
from trainer.reporting.template import printable
from trainer.runs import METRICS, provenance
from trainer.runs.folder import read_options

FILE_NAME = "MODEL_CARD.md"
_TEMPLATE = "model_card.md"
_GROUPS = 12
_EXAMPLE = """from trainer.predict import Predictor

predictor = Predictor({name})  # compares the sha256 first
print(predictor.predict(["face.jpg"]))"""
_VERIFY = "python -m trainer.model_card --run_dir={name} --data_dir=OUT --verify"

_CELEBA, _LAYOUT = "celeba", "celeba-layout"
#: Identifier of the data -> its name, and the name of its license.
_DATASETS = {
    celeba.SAMPLE_FORMAT: ("Synthetic faces in CelebA's layout", None),
    _CELEBA: ("CelebA", "celeba-non-commercial-research"),
    _LAYOUT: ("Images in CelebA's layout, not its official files", "terms-of-the-data"),
}
#: Options with paths on the machine of the training.
_PATHS = ("data_dir", "run_dir")


def write_card(
    run_dir: Path, exports: Sequence[str] = (), evaluations: Sequence[str] = ()
) -> Path:
    """Writes MODEL_CARD.md.

    Args:
      run_dir: directory of a finished run.
      exports: exported files elsewhere, see `provenance.find_exports`.
      evaluations: directories of evaluations elsewhere.

    Returns:
      The card's path.

    Raises:
      UserError: a file is missing or damaged (exit 3), or belongs to another model (5);
        the directory cannot be written (4).
    """
    run = load_run(run_dir)
    model_sha256 = provenance.model_sha256(run.record)
    if model_sha256 is None or "manifest_digest" not in run.record:
        cause = f"{run_dir} is not a finished run."
        raise input_error(cause, "Train it to its end first.")
    others = _evaluations(run_dir, run, model_sha256, evaluations)
    text = template.markdown(
        _TEMPLATE,
        **report.values(run, _GROUPS),
        **_values(run_dir, run),
        evaluations=others,
        exports=provenance.find_exports(run_dir, exports),
        model_sha256=model_sha256,
    )
    path = run_dir / FILE_NAME
    with files.output_errors(run_dir):
        files.atomic_write(path, text)
    return path


def _evaluations(
    run_dir: Path, run: Run, model_sha256: str, named: Sequence[str]
) -> dict[str, tuple[Run, tuple]]:
    """Name of the directory -> results and data of evaluations of this very model."""
    found = {}
    inside = sorted(run_dir.glob(f"evaluation-*/{METRICS}"))
    outside = [Path(name) for name in named]
    for folder in [*(path.parent for path in inside), *outside]:
        metrics = loading.read_metrics(folder)
        if metrics.get("evaluation", {}).get("model_sha256") == model_sha256:
            other = loading.evaluated(run, metrics)
            found[_name(folder)] = other, _dataset(other)
        elif folder in outside:
            raise loading.foreign(folder, f"no evaluation of the model in {run_dir}")
    return found


def _dataset(run: Run) -> tuple[str, str, str | None]:
    """Identifier and name of the data, and name of their license.

    CelebA is only what has CelebA's official annotations.
    """
    sources, about = run.record["data"]["sources"], run.record["data"]["dataset"]
    if about["key"] != _CELEBA:
        return about["key"], about["name"], "terms-of-the-data"
    if celeba.SAMPLE in sources:
        key = celeba.SAMPLE_FORMAT
    elif sources.get("attributes", {}).get("official") is True:
        key = _CELEBA
    else:
        key = _LAYOUT
    return key, *_DATASETS[key]


def _values(run_dir: Path, run: Run) -> dict[str, Any]:
    """The values of the template that the report does not have."""
    name = _name(run_dir)
    options = read_options(run.flags)
    # Paths of the machine of the training tell others nothing.
    weights = Path(options.get("weights", "none")).name
    options = {key: options[key] for key in options if key not in _PATHS}
    if "weights" in options:
        options["weights"] = weights
    return {
        "name": name,
        "dataset": _dataset(run),
        "metrics": report.METRICS,
        "sample": celeba,
        "label_errors": len(calibration.likely_label_errors(run.predictions)),
        "weights": "random weights" if weights == "none" else f"weights {weights}",
        "options": "\n".join(f"--{key}={value}" for key, value in options.items()),
        "example": _EXAMPLE.format(name=json.dumps(name)),
        "verify": _VERIFY.format(name=shlex.quote(name)),
    }


def _name(folder: Path) -> str:
    """A directory's own name, printable, whatever path leads to it."""
    return printable(folder.absolute().resolve().name)
