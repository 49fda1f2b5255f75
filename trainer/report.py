"""The report of one run: one HTML file that opens offline, and its figures as PNG.

Run as a program it renders the report of a finished run again, without pictures:
`python -m trainer.report --run_dir=RUN`.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from absl import flags
from markupsafe import Markup

from schemas import celeba
from support import command, figures, files, page
from support.errors import ExitCode, UserError, usage_error
from trainer import plots, subgroup_section, subgroup_table

FILE_NAME = "report.html"

MODEL_NAMES = {
    "googlenet": "GoogLeNet",
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "vgg16": "VGG16",
    "vgg19": "VGG19",
}

#: Key of `metrics.json` -> (name, what it says, as per cent).
METRICS = {
    "accuracy": ("Accuracy", "images called right", True),
    "balanced_accuracy": (
        "Balanced accuracy",
        "images called right, mean over the two labels",
        True,
    ),
    "precision": (
        "Precision",
        "of the images called {positive}, those labeled so",
        True,
    ),
    "recall": ("Recall", "of the images labeled {positive}, those called so", True),
    "f1": ("F1", "harmonic mean of precision and recall", True),
    "auc": (
        "ROC AUC",
        "chance that an image labeled {positive} scores above one that is not",
        False,
    ),
    "average_precision": (
        "Average precision",
        "precision averaged over all thresholds",
        False,
    ),
    "log_loss": (
        "Log loss",
        "penalty for sure mistakes; 0 is best, a coin toss has 0.693",
        False,
    ),
    "brier": (
        "Brier score",
        "mean squared error of the probability; 0 is best, a coin toss has 0.25",
        False,
    ),
}

_SPLITS = {
    "identity": "Nobody appears in two splits: the model never saw these people.",
    "official": "The splits are CelebA's official ones.",
    "random": "Images were split at random: the same person can be in training and "
    "test, which flatters these numbers.",
}
_RUN_KEYS = ("attribute", "best_epoch", "data", "epochs", "model", "parameters")
_COLUMNS = {
    "predictions.csv": ("image_id", "identity", "label", "probability"),
    "history.csv": ("epoch", "loss", "accuracy", "val_loss", "val_accuracy"),
}
_GALLERY_SIZE = 8
_PERCENT = "\u00a0%"  # with a space that does not break


@dataclasses.dataclass(frozen=True)
class Run:
    """What a finished run's folder holds.

    Attributes:
      record: `run.json`.
      metrics: `metrics.json`, see `trainer.metrics.evaluate`.
      history: `history.csv`, one row per epoch.
      predictions: `predictions.csv`, one row per test image.
      flags: `flags.txt`.
      subgroups: `subgroups.json`, None without it.
    """

    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame
    flags: str
    subgroups: subgroup_table.Table | None

    @property
    def positive(self) -> str:
        """The attribute as words, for example "Wearing Hat"."""
        return self.record["attribute"].replace("_", " ")

    @property
    def model_name(self) -> str:
        return MODEL_NAMES.get(self.record["model"], self.record["model"])


def load_run(run_dir: Path) -> Run:
    """Reads a run folder.

    Raises:
      UserError: exit 3, a file is missing, damaged or of another program.
    """
    record = _read_json(run_dir, "run.json", _RUN_KEYS)
    return Run(
        record=record,
        metrics=_read_json(run_dir, "metrics.json", (*METRICS, "confusion_matrix")),
        history=_read_csv(run_dir, "history.csv"),
        predictions=_read_csv(run_dir, "predictions.csv"),
        flags=_read(run_dir, "flags.txt"),
        subgroups=subgroup_table.read(run_dir),
    )


def write_report(run_dir: Path, pictures: Mapping[str, bytes] | None = None) -> Path:
    """Writes `report.html`, `curves.png`, `confusion_matrix.png` and `roc.png`.

    Args:
      run_dir: a finished run's folder, see `load_run`.
      pictures: JPEG files by image id, for the gallery (see `gallery_ids`); None
        leaves every face out.

    Returns:
      The path of the HTML file.

    Raises:
      UserError: exit 3, see `load_run`; exit 4, the folder cannot be written.
    """
    run = load_run(run_dir)
    panels = _panels(run)
    with files.output_errors(run_dir):
        for name, members in {
            "curves.png": ("loss", "accuracy"),
            "confusion_matrix.png": ("confusion_matrix",),
            "roc.png": ("roc",),
        }.items():
            figure = figures.png([panels[member] for member in members])
            files.atomic_write(run_dir / name, figure)
        path = run_dir / FILE_NAME
        files.atomic_write(path, _html(run, panels, pictures))
    return path


def gallery(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Chooses the rows worth looking at; ties go by image id.

    Args:
      predictions: columns `image_id`, `label` (0 or 1), `probability` (of label 1).

    Returns:
      `surest_right` (half of each label), `surest_wrong` and `most_uncertain`, each
      with at most eight rows, the most telling first.
    """
    rows = predictions.assign(
        sure=(predictions["probability"] - 0.5).abs(),
        right=(predictions["probability"] >= 0.5) == (predictions["label"] == 1),
    )
    surest = rows.sort_values(["sure", "image_id"], ascending=[False, True])
    right = surest[surest["right"]]
    halves = [
        right[right["label"] == label].head(_GALLERY_SIZE // 2) for label in (1, 0)
    ]
    return {
        "surest_right": pd.concat(halves),
        "surest_wrong": surest[~surest["right"]].head(_GALLERY_SIZE),
        "most_uncertain": rows.sort_values(["sure", "image_id"]).head(_GALLERY_SIZE),
    }


def gallery_ids(predictions: pd.DataFrame) -> list[str]:
    """The image ids that `write_report` shows when it is given their pictures."""
    chosen = pd.concat(gallery(predictions).values())
    return chosen["image_id"].drop_duplicates().tolist()


def summary(run: Run) -> list[str]:
    """The result in sentences."""
    n, people = run.metrics["n"], run.metrics["people"]
    (tn, fp), (fn, tp) = run.metrics["confusion_matrix"]
    accuracy = run.metrics["accuracy"]
    right = percent(accuracy["value"])
    sentence = f"{run.model_name} calls {right} of {n:,} test images of {people:,} "
    sentence += "people right"
    if fp + fn == 0:
        # Resampling cannot see errors that did not occur; the rule of three can
        # (Hanley and Lippman-Hand, JAMA 1983).
        bound = percent(min(1, 3 / people))
        sentences = [f"{sentence}: no mistake. An error rate of up to about {bound} "]
        sentences[0] += "still cannot be ruled out with so many people."
    elif accuracy["interval"]:
        low_high = interval(accuracy["interval"], percent)
        sentences = [
            f"{sentence} (95{_PERCENT} interval {low_high}, resampling people)."
        ]
    else:
        sentences = [f"{sentence}; too few people for an interval."]
    more_frequent = max(tn + fp, fn + tp) / n
    sentences.append(
        f"Always giving the more frequent label would be right for "
        f"{percent(more_frequent)}."
    )
    sentences.append(
        f"It misses {fn:,} of {fn + tp:,} images labeled {run.positive} and calls "
        f"{fp:,} of the {tn + fp:,} others {run.positive}."
    )
    return sentences


def percent(value: float | None) -> str:
    """0.943 -> "94.3 %"; an undefined value is a dash."""
    return "–" if value is None else f"{100 * value:.1f}{_PERCENT}"


def decimal(value: float | None) -> str:
    """0.98765 -> "0.988"; an undefined value is a dash."""
    return "–" if value is None else f"{value:.3f}"


def interval(bounds: tuple[float, float] | None, formatter=decimal) -> str:
    """(0.928, 0.956) -> "92.8–95.6 %" or "0.928–0.956"; none is a dash."""
    if bounds is None:
        return "–"
    low, high = (formatter(bound) for bound in bounds)
    return low.removesuffix(_PERCENT) + "–" + high


def duration(seconds: float) -> str:
    """1262 -> "21 min 2 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{value}\u00a0{unit}" for value, unit in parts if value) or "0 s"


def _panels(run: Run) -> dict[str, figures.Panel]:
    best = run.record["best_epoch"]
    label = run.predictions["label"].to_numpy()
    probability = run.predictions["probability"].to_numpy()
    names = (f"not {run.positive}", run.positive)
    return {
        "loss": plots.loss(run.history, best),
        "accuracy": plots.accuracy(run.history, best),
        "confusion_matrix": plots.confusion_matrix(
            run.metrics["confusion_matrix"], names
        ),
        "roc": plots.roc(label, probability, run.metrics["threshold"]),
        "reliability": plots.reliability(label, probability),
        "probabilities": plots.probabilities(label, probability, names),
    }


def _html(
    run: Run,
    panels: Mapping[str, figures.Panel],
    pictures: Mapping[str, bytes] | None,
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration}
    body = environment.get_template(FILE_NAME).render(
        run=run.record,
        metrics=run.metrics,
        flags=run.flags,
        model=run.model_name,
        positive=run.positive,
        summary=summary(run),
        rows=_metric_rows(run),
        best=run.history[run.history["epoch"] == run.record["best_epoch"]].iloc[0],
        charts={
            name: Markup(figures.svg(panel, name)) for name, panel in panels.items()
        },
        split_text=_SPLITS.get(run.record["data"]["split"], ""),
        gallery=_gallery_pictures(run, pictures),
        subgroups=run.subgroups and Markup(subgroup_section.section(run.subgroups)),
        data_terms=celeba.DATA_TERMS,
    )
    return page.render(f"{run.model_name}: {run.positive}", body)


def _metric_rows(run: Run) -> list[dict[str, str]]:
    rows = []
    for key, (name, meaning, as_percent) in METRICS.items():
        formatter = percent if as_percent else decimal
        metric = run.metrics[key]
        rows.append(
            {
                "name": name,
                "meaning": meaning.format(positive=run.positive),
                "value": formatter(metric["value"]),
                "interval": interval(metric["interval"], formatter),
            }
        )
    return rows


def _gallery_pictures(
    run: Run, pictures: Mapping[str, bytes] | None
) -> dict[str, list[dict[str, Any]]]:
    """Per group the pictures at hand, as `data:` URIs with their prediction."""
    if not pictures:
        return {}
    return {
        group: [
            {
                "image_id": row.image_id,
                "source": page.data_uri("image/jpeg", pictures[row.image_id]),
                "probability": row.probability,
                "label": row.label,
            }
            for row in rows.itertuples()
            if row.image_id in pictures
        ]
        for group, rows in gallery(run.predictions).items()
    }


def _read(run_dir: Path, name: str) -> str:
    try:
        return (run_dir / name).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"{run_dir} holds no {name}" if run_dir.is_dir() else f"No run {run_dir}"
        raise _input_error(f"{what}.") from error
    except UnicodeDecodeError as error:
        raise _input_error(f"{run_dir / name} is not a text file.") from error


def _read_json(run_dir: Path, name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        document = json.loads(_read(run_dir, name))
    except json.JSONDecodeError as error:
        raise _input_error(
            f"{run_dir / name}:{error.lineno} is not complete JSON."
        ) from error
    missing = [key for key in keys if key not in document]
    if missing:
        raise _input_error(f"{run_dir / name} has no {missing[0]!r}.")
    return document


def _read_csv(run_dir: Path, name: str) -> pd.DataFrame:
    _read(run_dir, name)
    try:
        table = pd.read_csv(
            run_dir / name, dtype={"image_id": str}, keep_default_na=False
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise _input_error(f"{run_dir / name} is not a complete CSV file.") from error
    missing = [column for column in _COLUMNS[name] if column not in table]
    numbers = [column for column in _COLUMNS[name] if column != "image_id"]
    if missing:
        raise _input_error(f"{run_dir / name} has no column {missing[0]!r}.")
    if not all(pd.api.types.is_numeric_dtype(table[column]) for column in numbers):
        raise _input_error(f"{run_dir / name} has a value that is not a number.")
    return table


def _input_error(cause: str) -> UserError:
    return UserError(cause, "Give the folder of a finished run.", ExitCode.INPUT_DATA)


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Flags of `python -m trainer.report`."""

    run_dir: str | None = command.option(None, "Folder of a finished run.")

    def __post_init__(self):
        if not self.run_dir:
            raise usage_error("--run_dir is missing.", "Add --run_dir=runs/NAME.")


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(ReportConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(ReportConfig, values)
    print(write_report(Path(config.run_dir)))


if __name__ == "__main__":
    command.run(main)
