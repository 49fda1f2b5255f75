"""What a model card says of data, labels, subgroups and training, in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas import celeba
from support.text import duration, percent
from trainer import subgroups
from trainer.evaluation import calibration
from trainer.evaluation.subgroup_table import Group, Table
from trainer.reporting.markdown import Markdown, block, code, escape
from trainer.runs import run_record
from trainer.runs.run_reader import Run

#: Options that say where things lay on the machine of the training.
_PLACES = ("data_dir", "run_dir")
_LOWEST, _CLEAREST = 5, 12
_SMALL_NAMED = 12
_TRAINING = {
    "device_name": "Hardware",
    "devices": "Devices",
    "replicas": "Replicas",
    "global_batch": "Global batch",
    "precision": "Precision",
    "xla": "XLA",
    "seed": "Seed",
    "started": "Started",
    "finished": "Finished",
}


def dataset_name(sources: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """An identifier and a name of the data, as far as the sources tell.

    The name CelebA is given only where the annotations are its official file.
    """
    if celeba.SAMPLE in sources:
        return celeba.SAMPLE_FORMAT, "Drawn faces in CelebA's layout"
    if sources.get("attributes", {}).get("official") is True:
        return "celeba", "CelebA"
    return "celeba-layout", "Pictures in CelebA's layout, not its official files"


def license_of(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The card's metadata about the license."""
    kind = dataset_name(sources)[0]
    if kind == celeba.SAMPLE_FORMAT:
        return {"license": "apache-2.0"}
    name = "celeba-non-commercial-research" if kind == "celeba" else "terms-of-the-data"
    return {
        "license": "other",
        "license_name": name,
        "license_link": celeba.HOME_PAGE,
    }


def origin(sources: Mapping[str, Mapping[str, Any]]) -> str:
    """Where the training images come from."""
    kind = dataset_name(sources)[0]
    if kind == celeba.SAMPLE_FORMAT:
        return (
            "The model was trained on faces drawn by a program, in CelebA's layout: "
            "the dataset's manifest names a drawn sample as its source. This is not "
            "CelebA, no person is shown, and the results say nothing about photographs."
        )
    if kind == "celeba":
        return (
            "The model was trained on images of CelebA (Liu, Luo, Wang and Tang, ICCV "
            "2015): the sha256 of its annotations is that of the official file."
        )
    return (
        "The annotations are not CelebA's official file (another sha256), so that this "
        "card cannot say what the images are: a part or a copy of CelebA, or other "
        "pictures in its layout."
    )


def terms(sources: Mapping[str, Mapping[str, Any]]) -> str:
    """What the data's terms mean for the model."""
    kind = dataset_name(sources)[0]
    if kind == celeba.SAMPLE_FORMAT:
        return (
            "The drawn faces and this model are under the Apache License 2.0, as the "
            "code is."
        )
    condition = "" if kind == "celeba" else "As far as the images are CelebA's: "
    return (
        f"{condition}{celeba.DATA_TERMS}\n\nThe code is under the Apache License 2.0, "
        "but a model made from these images is for non-commercial research too. The "
        "model's files hold no image; lists of predictions hold image names."
    )


def provenance(run: Run, sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the labels come from and how far they can be trusted, in sentences."""
    found = len(calibration.likely_label_errors(run.predictions))
    doubtful = (
        f"{found:,} of {len(run.predictions):,} {run.split} images are likely label "
        "errors: the model contradicts their label at least as surely as it usually "
        "agrees with the other one (confident learning). Either may be wrong; "
        "likely_label_errors.csv lists them."
    )
    if dataset_name(sources)[0] == celeba.SAMPLE_FORMAT:
        return [
            "The labels are those that the drawing program followed, not anyone's "
            "perception; they are exact.",
            doubtful,
        ]
    return [
        f"{run.positive} is a perceived attribute. CelebA's attributes were ticked by "
        "a professional labeling company that looked at the pictures, each as one of "
        "two values; nobody shown was asked.",
        "The labels carry known noise, and pictures of one person are not always "
        "labeled alike (Wu, Bezold, Günther, Boult, King and Bowyer, “Consistency and "
        "accuracy of CelebA attribute values”, CVPR Workshops 2023).",
        doubtful,
    ]


def people(run: Run, validation_people: int | None) -> str:
    """How the splits were made and how many people are in them."""
    how = {
        "identity": "Split by identity: nobody appears in two splits.",
        "official": "The splits are CelebA's official ones, by identity.",
        "random": "Split by image: one person can be in training and test, which "
        "flatters the results.",
    }.get(run.record["data"]["split"], "")
    counts = [f"{run.metrics['people']:,} people in {run.split}"]
    if validation_people is not None:
        counts.append(f"{validation_people:,} in validation")
    return f"{how} {', '.join(counts)}.".strip()


def subgroup_facts(table: Table | None) -> dict[str, Any] | None:
    """What the card shows of the subgroups: sentences, rows, the small groups."""
    if table is None:
        return None
    large = [
        group
        for group in table.groups
        if not group.small and group.accuracy.value is not None
    ]
    lowest = sorted(large, key=lambda group: (group.accuracy.value, group.name))
    shown = {group.name: group for group in lowest[:_LOWEST]}
    shown |= {group.name: group for group in subgroups.telling(table, _CLEAREST)}
    rows = sorted(shown.values(), key=lambda group: group.accuracy.value)
    small = [group.title for group in table.groups if group.small]
    more = len(small) - _SMALL_NAMED
    named = ", ".join(escape(title) for title in small[:_SMALL_NAMED])
    return {
        "sentences": subgroups.sentences(table),
        "note": subgroups.NOTE,
        "rows": [_group_row(group) for group in rows],
        "count": len(table.groups),
        "min_people": table.min_people,
        "min_images": table.min_images,
        "small": Markdown(named + (f" and {more:,} more" if more > 0 else "")),
    }


def _group_row(group: Group) -> dict[str, str]:
    rate = group.accuracy
    gap = subgroups.points(rate.gap)
    if rate.gap_interval:
        low, high = (subgroups.points(bound) for bound in rate.gap_interval)
        gap = f"{gap} ({low} to {high})"
    accuracy = subgroups.percent(rate.value)
    if rate.interval:
        accuracy += f" ({subgroups.percents(rate.interval)})"
    return {
        "title": group.title,
        "n": f"{group.n:,}",
        "people": f"{group.people:,}",
        "accuracy": accuracy,
        "gap": gap,
        "mark": "small" if group.small else "survives" if rate.survives else "",
    }


def training(run: Run) -> list[tuple[str, str]]:
    """Name and value of what is known of the training procedure."""
    record = run.record
    options = run_record.read_options(run.flags)
    weights = Path(options.get("weights", "none")).name
    start = "random weights" if weights == "none" else f"weights {weights}"
    rows = [
        ("Architecture", f"{run.model_name}, {record['parameters']:,} parameters"),
        ("Start", f"{start}, regime {record.get('regime', 'scratch')}"),
        ("Epochs", str(record["epochs"])),
        ("Best epoch, by validation loss", str(record["best_epoch"])),
    ]
    for key, name in _TRAINING.items():
        if key in record:
            rows.append((name, _words(record[key])))
    if "train_seconds" in record:
        rows.append(("Training time", duration(record["train_seconds"])))
    if record.get("images_per_second") is not None:
        rows.append(("Images per second", f"{record['images_per_second']:,.0f}"))
    if "input_wait" in record:
        rows.append(("Waiting for data", percent(record["input_wait"])))
    versions = record.get("versions", {})
    if versions:
        named = ", ".join(f"{name} {version}" for name, version in versions.items())
        rows.append(("Versions", named))
    return rows


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(value) if isinstance(value, list) else str(value)


def options(flags: str) -> Markdown:
    """The run's options without folders, which say nothing to others."""
    lines = []
    for name, value in run_record.read_options(flags).items():
        if name in _PLACES:
            continue
        if name == "weights":
            value = Path(value).name
        lines.append(f"--{name}={value}")
    return block("\n".join(lines))


def links(
    sources: Mapping[str, Mapping[str, Any]],
    digest: str,
    shards: int | None,
    model_sha256: str,
    exports: Sequence[tuple[str, str, bool]],
) -> list[dict[str, str]]:
    """The rows of the chain of hashes.

    Args:
      sources: of the manifest.
      digest: the manifest's.
      shards: their number; None if the manifest is not at hand.
      model_sha256: of best.keras.
      exports: name, sha256 and whether it is a folder, of each export.
    """
    rows = [
        _source_link(name, facts)
        for name, facts in sources.items()
        if "sha256" in facts
    ]
    what = "" if shards is None else f", {shards:,} shards in it"
    verify = code("python -m beam_pipelines.verify --dataset_dir=OUT")
    rows.append(_link(f"dataset (manifest digest{what})", digest, verify))
    best = run_record.BEST
    rows.append(_link(code(best), model_sha256, code(f"sha256sum {best}")))
    for name, sha256, is_folder in exports:
        check = code(f"sha256sum {name}")
        if is_folder:
            check = Markdown("the command above")
        rows.append(_link(Markdown(f"export {code(name)}"), sha256, check))
    return rows


def _source_link(name: str, facts: Mapping[str, Any]) -> dict[str, str]:
    file = facts.get("file")
    if name == celeba.SAMPLE:
        file = celeba.SAMPLE_FILE
    if file:
        label = Markdown(f"source {code(file)}")
        return _link(label, facts["sha256"], code(f"sha256sum {file}"))
    check = "a build from the same images has the same manifest digest"
    return _link(f"source {name} (names and sizes)", facts["sha256"], check)


def _link(name: str, sha256: str, check: str) -> dict[str, str]:
    return {"name": name, "sha256": code(sha256), "check": check}
