"""Evaluates a finished run: `python -m trainer.evaluate --run_dir=RUN --data_dir=OUT`.

Every example of one split once, never augmented, in float32: the same numbers at any
batch size. Writes what the end of a run writes: metrics, predictions, lists, report.
"""

import dataclasses
from pathlib import Path
from typing import Any

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import tensorflow as tf

from schemas import celeba
from schemas.manifest import Manifest
from support import command
from support.errors import ExitCode, UserError, did_you_mean, usage_error
from support.files import FolderLock
from trainer import models
from trainer.config import FROM_1, check_numbers
from trainer.data import Dataset, evaluation_dataset, open_dataset
from trainer.evaluation import calibration, groups, loading
from trainer.finish import conclude
from trainer.loop import runtime, wakeup
from trainer.loop.scoring import predict_split
from trainer.loop.steps import EvaluationStep
from trainer.reporting import template
from trainer.runs import (
    PREDICTIONS,
    RUN,
    VALIDATION_PREDICTIONS,
    provenance,
    record,
)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Flags of `python -m trainer.evaluate`."""

    run_dir: str | None = command.option(None, "Folder of a finished run.")
    data_dir: str | None = command.option(None, "Folder of the dataset.")
    eval_split: str = command.option("test", "Split: train, validation or test.")
    batch_size: int = command.option(64, "Images per step; changes no result.", FROM_1)
    output_dir: str | None = command.option(
        None, "Folder for the results; RUN/evaluation-SPLIT if left out."
    )
    abstain: float = command.option(
        calibration.ABSTAIN,
        "No decision for probabilities less than this away from 0.5.",
        (0, 0.5),
    )
    target_error: float | None = command.option(
        None,
        "Instead of --abstain: the smallest band with at most this share of mistakes "
        "on the run's validation images.",
        (0, 1),
    )
    flip_average: bool = command.option(
        False, "Average each logit with the mirror image's, though the run does not."
    )
    report_images: bool = command.option(
        True, "Show pictures and heat maps in the report."
    )

    def __post_init__(self):
        for name, like in (("run_dir", "runs/NAME"), ("data_dir", "data/NAME")):
            if not getattr(self, name):
                raise usage_error(f"--{name} is missing.", f"Add --{name}={like}.")
        if self.eval_split not in celeba.SPLITS:
            raise usage_error(
                f"There is no split {self.eval_split!r}.",
                did_you_mean(self.eval_split, celeba.SPLITS),
            )
        check_numbers(self)

    @property
    def results_dir(self) -> Path:
        default = Path(self.run_dir) / f"evaluation-{self.eval_split}"
        return Path(self.output_dir or default)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluates a run and writes its results.

    Returns:
      What metrics.json holds: see `results.assess`, and `evaluation`.

    Raises:
      UserError: another attribute (exit 2); no finished run or dataset, an empty split,
        or no validation predictions for a target error (3); the folder holds something
        else or is in use (4); a damaged file (5); no memory for the batch (7).
    """
    run = record.read_run(config.run_dir)
    with FolderLock(config.results_dir):
        return _evaluate(config, run)


def _evaluate(config: EvaluateConfig, run: record.RunRecord) -> dict[str, Any]:
    run_dir, split = Path(config.run_dir).absolute(), config.eval_split
    _check_folder(config.results_dir)
    abstain = _choose_band(config, run_dir)
    model = models.load(run_dir, config.flip_average)
    record.require(run_dir, run, ("manifest_digest", "seed"))
    dataset = open_dataset(config.data_dir, needed=[split])
    _check_dataset(run, dataset, config)
    step = EvaluationStep(model, tf.distribute.get_strategy())
    batches = evaluation_dataset(dataset, split, config.batch_size, as_supervised=False)
    with runtime.memory_errors(config.batch_size):
        predictions = predict_split(step, dataset, split, batches)
    evaluation = describe(run, dataset.manifest, split)
    if config.flip_average:
        note = "Each logit is the mean of the image's and its mirror image's."
        evaluation["notes"].append(note)
    return conclude(
        run_dir,
        config.results_dir,
        model,
        dataset,
        predictions,
        config.report_images,
        evaluation,
        temperature=run.get("temperature", 1.0),
        split=split,
        abstain=abstain,
        target_error=config.target_error,
        seed=run["seed"],
    )


def describe(run: dict[str, Any], manifest: Manifest, split: str) -> dict[str, Any]:
    """What metrics.json says of the model and the data of an evaluation."""
    return {
        "evaluated": record.now(),
        "attribute": manifest.attribute,
        "manifest_digest": manifest.digest,
        "run_manifest_digest": run["manifest_digest"],
        "model_sha256": provenance.model_sha256(run),
        "data": record.describe_data(manifest),
        "notes": _notes(
            run["manifest_digest"] == manifest.digest,
            split,
            manifest.config.get("split"),
        ),
    }


def _notes(same_data: bool, split: str, split_by: str | None) -> list[str]:
    """What a reader of the numbers must know about these data."""
    if not same_data:
        return [
            "This is not the dataset that the run was trained on (its manifest is "
            "another): whether people of this split were in the run's training split "
            "cannot be known, and any who were flatter these numbers."
        ]

    return {
        "train": [
            "The model was trained on these images: the numbers say nothing about new "
            "ones."
        ],
        "validation": [
            "The epoch and the temperature were chosen on these images, which flatters "
            "the numbers a little."
        ],
        "test": [template.SPLITS["random"]] if split_by == "random" else [],
    }[split]


def _choose_band(config: EvaluateConfig, run_dir: Path) -> float:
    if config.target_error is None:
        return config.abstain
    table = loading.read_csv(run_dir, VALIDATION_PREDICTIONS)
    band = calibration.smallest_threshold(
        table["label"].to_numpy(), table["probability"].to_numpy(), config.target_error
    )
    if band is None:
        raise usage_error(
            f"No band reaches --target_error={config.target_error} on the run's "
            "validation images: even the surest decisions are wrong more often.",
            "Choose a higher target, or give the band with --abstain.",
        )
    return band


def _check_folder(folder: Path) -> None:
    """Lets results go only where nothing is, or where an evaluation was."""
    if folder.exists() and not folder.is_dir():
        problem = "is not a folder"
    elif not folder.is_dir() or not any(folder.iterdir()):
        return
    elif (folder / RUN).exists() or not _is_evaluation(folder):
        problem = "holds other files than those of an evaluation"
    else:
        print(f"replacing the evaluation in {folder}")
        return
    raise UserError(
        f"{folder} {problem}.", "Choose another --output_dir.", ExitCode.OUTPUT
    )


def _is_evaluation(folder: Path) -> bool:
    """Whether an evaluation's predictions, which are written first, are in a folder."""
    try:
        table = loading.read_csv(folder, PREDICTIONS)
    except UserError:
        return False
    return bool(groups.attributes_of(table))


def _check_dataset(
    run: dict[str, Any], dataset: Dataset, config: EvaluateConfig
) -> None:
    if dataset.manifest.attribute != run["attribute"]:
        raise usage_error(
            f"{config.data_dir} is labeled by {dataset.manifest.attribute}, but "
            f"{config.run_dir} predicts {run['attribute']}.",
            f"Name a dataset built with --attribute={run['attribute']}.",
        )


def main(argv: list[str]) -> None:
    config = command.parse_config(EvaluateConfig, argv)
    with wakeup.Watch():
        evaluate(config)


if __name__ == "__main__":
    command.run(main)
