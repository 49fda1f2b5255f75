"""The model card of a finished run: `python -m trainer.model_card --run_dir=RUN`.

Writes MODEL_CARD.md, Markdown with Hugging Face's metadata header, from the files of
the run folder; evaluations and exports that lie in it are taken in. With --verify it
writes nothing, but recomputes the chain of hashes. Header:
https://huggingface.co/docs/hub/model-cards; contents: Mitchell et al., "Model Cards for
Model Reporting", 2019.
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from absl import flags

from support import command, files
from support.errors import ExitCode, UserError, usage_error
from support.text import decimal, interval, percent
from trainer.evaluation import results
from trainer.reporting import card_text, report
from trainer.reporting.markdown import Markdown, block, code, escape, printable
from trainer.runs import chain, run_reader, run_record
from trainer.runs.run_reader import Run, load_run

FILE_NAME = "MODEL_CARD.md"
_TEMPLATE = "model_card.md"
_MOST_SHARDS = 200
_EXAMPLE = """from trainer.predict import Predictor

predictor = Predictor({folder})  # compares the sha256 first
print(predictor.predict(["face.jpg"]))"""

#: Key of `metrics.json` -> Hugging Face's identifier of the metric.
_METRIC_IDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "f1",
    "auc": "roc_auc",
    "average_precision": "average_precision",
    "log_loss": "log_loss",
    "brier": "brier_score",
    "ece": "expected_calibration_error",
}


@dataclasses.dataclass(frozen=True)
class ModelCardConfig:
    """Flags of `python -m trainer.model_card`."""

    run_dir: str | None = command.option(None, "Folder of a finished run.")
    export: tuple[str, ...] = command.option(
        (), "Exports of the run that lie elsewhere; those in the run folder are found."
    )
    evaluation: tuple[str, ...] = command.option(
        (), "Folders of trainer.evaluate that lie elsewhere than in the run folder."
    )
    verify: bool = command.option(
        False, "Write nothing; recompute the hashes of all that is at hand."
    )
    data_dir: str | None = command.option(
        None, "With --verify: folder of the dataset, to check it too."
    )

    def __post_init__(self):
        if not self.run_dir:
            raise usage_error("--run_dir is missing.", "Add --run_dir=runs/NAME.")
        if self.data_dir and not self.verify:
            raise usage_error("--data_dir is for --verify only.", "Add --verify.")
        if self.evaluation and self.verify:
            raise usage_error(
                "--evaluation is for the card; --verify writes none.",
                "Leave one of the two out.",
            )


def write_card(
    run_dir: Path, exports: Sequence[str] = (), evaluations: Sequence[str] = ()
) -> Path:
    """Writes MODEL_CARD.md.

    Args:
      run_dir: a finished run's folder.
      exports: exported files elsewhere, see `chain.find_exports`.
      evaluations: folders of evaluations elsewhere.

    Returns:
      The card's path.

    Raises:
      UserError: a file is missing or damaged (exit 3), or belongs to another model (5);
        the folder cannot be written (4).
    """
    run = load_run(run_dir)
    model_sha256 = _recorded_model(run_dir, run)
    others = _evaluations(run_dir, model_sha256, evaluations)
    found = chain.find_exports(run_dir, exports)
    header = yaml.safe_dump(
        _metadata(_name(run_dir), run, others), sort_keys=False, width=float("inf")
    )
    body = _body(run_dir, run, model_sha256, others, found)
    path = run_dir / FILE_NAME
    with files.output_errors(run_dir):
        files.atomic_write(path, f"---\n{header}---\n\n{body}")
    return path


def _recorded_model(run_dir: Path, run: Run) -> str:
    recorded = run.record.get("files", {}).get(run_record.BEST)
    if recorded is None or "manifest_digest" not in run.record:
        raise UserError(
            f"{run_dir} holds no finished run.",
            "Train it to its end first.",
            ExitCode.INPUT_DATA,
        )
    return recorded


def _evaluations(
    run_dir: Path, model_sha256: str, named: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """Name of the folder -> metrics.json, of evaluations of this very model."""
    found = {}
    for folder in sorted(run_dir.glob("evaluation-*")):
        if (folder / results.METRICS).is_file():
            metrics = run_reader.read_metrics(folder)
            if _is_of(metrics, model_sha256):
                found[folder.name] = metrics
    for folder in map(Path, named):
        metrics = run_reader.read_metrics(folder)
        if not _is_of(metrics, model_sha256):
            raise UserError(
                f"{folder} is no evaluation of the model in {run_dir}.",
                "Name a folder that `python -m trainer.evaluate` wrote for this run.",
                ExitCode.INTEGRITY,
            )
        found[_name(folder)] = metrics
    return found


def _is_of(metrics: Mapping[str, Any], model_sha256: str) -> bool:
    return metrics.get("evaluation", {}).get("model_sha256") == model_sha256


def _metadata(
    name: str, run: Run, evaluations: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The header: plain strings, numbers, lists and dicts only."""
    sources = run.record["data"]["sources"]
    identifier, _ = card_text.dataset_name(sources)
    reported = [run_reader.evaluated(run, metrics) for metrics in evaluations.values()]
    return {
        **card_text.license_of(sources),
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["face-attributes", "perceived-attribute", run.record["model"]],
        "datasets": [identifier],
        "metrics": [_METRIC_IDS[key] for key in _METRIC_IDS if key in run.metrics],
        "model-index": [
            {"name": name, "results": [_result(one) for one in (run, *reported)]}
        ],
    }


def _result(run: Run) -> dict[str, Any]:
    """One entry of model-index: a task, a dataset, metrics."""
    identifier, name = card_text.dataset_name(run.record["data"]["sources"])
    positive = printable(run.positive)
    found = []
    for key, metric_id in _METRIC_IDS.items():
        value = run.metrics.get(key, {}).get("value")
        if value is None:
            continue
        title = report.METRICS[key][0]
        bounds = run.metrics[key]["interval"]
        if bounds:
            low, high = (f"{bound:.4f}" for bound in bounds)
            title += f" (95 % interval {low} to {high}, by people)"
        found.append({"type": metric_id, "value": value, "name": title})
    return {
        "task": {
            "type": "image-classification",
            "name": f"Perceived attribute {positive}",
        },
        "dataset": {
            "type": identifier,
            "name": name,
            "split": run.split,
            "revision": printable(run.record["manifest_digest"]),
        },
        "metrics": found,
    }


def _body(
    run_dir: Path,
    run: Run,
    model_sha256: str,
    evaluations: Mapping[str, Mapping[str, Any]],
    exports: Mapping[Path, Mapping[str, Any]],
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "reporting/templates"),
        autoescape=False,  # that is for HTML; `escape` does it for Markdown
        finalize=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    facts = _results(run, evaluations) | _data(run_dir, run)
    facts |= _chain(run_dir, run, model_sha256, exports)
    text = environment.get_template(_TEMPLATE).render(
        run=run.record,
        model=run.model_name,
        positive=run.positive,
        gendered=run.record["attribute"] == "Male",
        training=card_text.training(run),
        options=card_text.options(run.flags),
        example=block(_EXAMPLE.format(folder=json.dumps(_name(run_dir))), "python"),
        temperature=run.record.get("temperature", 1.0),
        exports=[_export_row(*item) for item in exports.items()],
        **facts,
    )
    return text.replace("\u00a0", " ")


def _results(run: Run, evaluations: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the template is told of the results."""
    return {
        "metrics": run.metrics,
        "own_split": run.split,
        "summary": report.summary(run),
        "rows": report.metric_rows(run),
        "share": percent(sum(run.metrics["confusion_matrix"][1]) / run.metrics["n"]),
        "calibration": report.calibration_sentences(run),
        "subgroups": card_text.subgroup_facts(run.subgroups),
        "evaluations": [_evaluation_row(*item) for item in evaluations.items()],
    }


def _data(run_dir: Path, run: Run) -> dict[str, Any]:
    """What the template is told of images and labels."""
    sources = run.record["data"]["sources"]
    return {
        "data": run.record["data"],
        "origin": card_text.origin(sources),
        "terms": Markdown(card_text.terms(sources)),  # holds a link
        "people": card_text.people(run, _validation_people(run_dir)),
        "provenance": card_text.provenance(run, sources),
    }


def _chain(
    run_dir: Path,
    run: Run,
    model_sha256: str,
    exports: Mapping[Path, Mapping[str, Any]],
) -> dict[str, Any]:
    """What the template is told of the hashes."""
    digest = run.record["manifest_digest"]
    manifest = chain.read_manifest(run_dir, digest)
    name = shlex.quote(_name(run_dir))
    words = f"python -m trainer.model_card --run_dir={name} --data_dir=OUT --verify"
    return {
        "verify": block(words, "sh"),
        "links": card_text.links(
            run.record["data"]["sources"],
            digest,
            manifest and len(manifest.shards),
            model_sha256,
            [(p.name, record["sha256"], p.is_dir()) for p, record in exports.items()],
        ),
        "shards": _shards(manifest),
    }


def _evaluation_row(name: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    facts = metrics["evaluation"]
    _, data = card_text.dataset_name(facts["data"]["sources"])
    return {
        "name": code(name),
        "split": metrics.get("split", "test"),
        "n": f"{metrics['n']:,}",
        "people": f"{metrics['people']:,}",
        "accuracy": _estimate(metrics["accuracy"], percent),
        "auc": _estimate(metrics["auc"], decimal),
        "data": data,
        "manifest": code(facts["manifest_digest"][:12]),
        "notes": facts["notes"],
    }


def _export_row(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    difference = record["largest_difference"]
    return {
        "name": code(path.name),
        "format": record["format"],
        "difference": "–" if difference is None else f"{difference:.2g}",
    }


def _estimate(found: Mapping[str, Any], formatter) -> str:
    if not found["interval"]:
        return formatter(found["value"])
    return f"{formatter(found['value'])} ({interval(found['interval'], formatter)})"


def _shards(manifest: chain.Manifest | None) -> Markdown | None:
    if manifest is None or len(manifest.shards) > _MOST_SHARDS:
        return None
    lines = [f"{shard.sha256}  {shard.name}" for shard in manifest.shards]
    return block("\n".join(lines))


def _validation_people(run_dir: Path) -> int | None:
    if not (run_dir / results.VALIDATION_PREDICTIONS).is_file():
        return None
    table = run_reader.read_csv(run_dir, results.VALIDATION_PREDICTIONS)
    known = table["identity"] >= 0
    return int(table["identity"][known].nunique() + (~known).sum())


def _name(folder: Path) -> str:
    """A folder's own name, printable, whatever path leads to it."""
    return printable(folder.absolute().resolve().name)


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(ModelCardConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(ModelCardConfig, values)
    run_dir = Path(config.run_dir)
    if not config.verify:
        print(write_card(run_dir, config.export, config.evaluation))
        return
    exports = chain.find_exports(run_dir, config.export)
    for line in chain.verify(run_dir, config.data_dir, exports):
        print(f"holds: {line}")
    if not config.data_dir:
        print("not checked: the dataset (--data_dir)")


if __name__ == "__main__":
    command.run(main)
